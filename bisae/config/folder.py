"""Where the shipped configs lie: in the package where it is installed, beside it in a checkout."""

from pathlib import Path

BISAE = Path(__file__).resolve().parents[1]
CONF = BISAE / "conf" if (BISAE / "conf").is_dir() else BISAE.parent / "conf"
