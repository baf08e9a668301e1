"""The other libraries themselves load what ours writes, and ours what they write; skipped without them: parity.py."""

from pathlib import Path

import pytest

from tests.convert.parity import PEERS, differences


@pytest.mark.parametrize("library", ["saelens", "sparsify", "dictionary_learning"])
def test_a_library_and_ours_agree_on_each_others_files(library: str, tmp_path: Path) -> None:
    if library not in PEERS:
        pytest.skip(f"BISAE_PEERS names no interpreter with {library}")
    for direction, case, codes, reconstruction in differences(library, tmp_path):
        assert max(codes, reconstruction) < 1e-5, (direction, case, codes, reconstruction)
