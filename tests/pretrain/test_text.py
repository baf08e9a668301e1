"""The pair files that a ladder is trained and scored on."""

from pathlib import Path

import pytest

from bisae.pretrain.text import Pairs
from bisae.runtime.errors import Refused

GOOD = "id\ten\tja\n1\tdog\t犬\n"


def pair_file(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.tsv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("field", ["lm", "validation"])
@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (None, "no such pair file"),
        ("id\ten\tja\n", "holds no pairs"),
        ("id\ten\tja\n1\tdog\n", ":2: expected a number"),
    ],
)
def test_a_pair_file_that_cannot_be_used_is_refused_by_its_argument(
    field: str, text: str | None, remedy: str, tmp_path: Path
) -> None:
    files = {name: pair_file(tmp_path, name, GOOD) for name in ("lm", "validation")}
    files[field] = tmp_path / "missing.tsv" if text is None else pair_file(tmp_path, field, text)
    with pytest.raises(Refused, match=f"^{field}={files[field]}: .*{remedy}") as caught:
        Pairs.read(**files)
    assert caught.value.field == field


def test_validation_pairs_in_other_languages_are_refused(tmp_path: Path) -> None:
    held = pair_file(tmp_path, "held", "id\tja\ten\n1\t犬\tdog\n")
    with pytest.raises(Refused, match=r"^validation=\('ja', 'en'\): .*\('en', 'ja'\)"):
        Pairs.read(pair_file(tmp_path, "lm", GOOD), held)
