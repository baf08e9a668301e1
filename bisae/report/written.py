"""Remember the files of a report, so that a later report in the same folder can replace them."""

import json
from collections.abc import Iterable
from pathlib import Path

from bisae.runtime.atomic import write_json


def forget(folder: Path, written: Iterable[Path]) -> None:
    """Remove the files that an earlier report wrote into `folder` and this one did not. Other files stay."""
    names = [str(path.relative_to(folder)) for path in written]
    manifest = folder / "report.json"
    earlier = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else []
    for name in set(earlier) - set(names):
        (folder / name).unlink(missing_ok=True)
    write_json(manifest, names)
