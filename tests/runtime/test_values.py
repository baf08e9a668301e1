from pathlib import Path

import pytest

from bisae.runtime.errors import Refused
from bisae.runtime.values import writable


def test_a_place_that_cannot_be_written_is_refused_by_its_key(tmp_path: Path) -> None:
    writable({"runs": tmp_path / "new" / "runs"})
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="^runs=.*cannot be made"):
        writable({"runs": tmp_path / "file" / "runs"})
