"""The files of a report, so that a later one in the same folder can replace them."""

import json
from collections.abc import Iterable
from pathlib import Path

from bisae.runtime.atomic import write_json


def forget(folder: Path, written: Iterable[Path]) -> None:
    """Remove what an earlier report wrote into `folder` and this one did not; files of others stay."""
    names = [str(path.relative_to(folder)) for path in written]
    manifest = folder / "report.json"
    earlier = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else []
    for name in set(earlier) - set(names):
        (folder / name).unlink(missing_ok=True)
    write_json(manifest, names)
