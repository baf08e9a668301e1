"""Every family of causal LMs that transformers knows, at random weights: read right, or refused for what it does."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from bisae.lm.model import HuggingFaceModel
from bisae.lm.residual import ResidualReader
from bisae.runtime.errors import Refused
from tests.lm.tiny_lms import VOCABULARY, families, tiny_lm

pytestmark = pytest.mark.slow

PARTS = 6
AT_LEAST = 83
IDS = torch.arange(5, 5 + 18).view(2, 9)
CPU = torch.device("cpu")


def blocks_of(lm: PreTrainedModel) -> nn.ModuleList:
    """Found in another way than by bisae: the first list of modules that are called blocks or layers."""
    lists = (m for m in lm.modules() if isinstance(m, nn.ModuleList) and len(m) > 1)
    return next(found for found in lists if re.search("Layer|Block", type(found[0]).__name__))


@torch.no_grad()
def outputs(lm: PreTrainedModel) -> list[Tensor]:
    """What the blocks of the whole LM put out, by hooks of our own."""
    found: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _, __, out: found.append(out if isinstance(out, Tensor) else out[0]))
        for block in blocks_of(lm)
    ]
    lm(input_ids=IDS, use_cache=False)
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
def looks_ahead(lm: PreTrainedModel) -> bool:
    """By its logits: whether those of the first tokens follow from the last token."""
    other = IDS.clone()
    other[:, -1] = VOCABULARY - 1
    change = (lm(input_ids=IDS, use_cache=False).logits - lm(input_ids=other, use_cache=False).logits).abs()
    return bool(change[:, :-1].max() > 1e-5 * change[:, -1].max())


def outcome(family: str, folder: Path) -> str:
    """`read`, `looks ahead`, or why there is nothing to read."""
    try:
        tiny_lm(family).save_pretrained(folder)
        lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    except Exception as problem:
        return f"not built: {problem}"
    model = HuggingFaceModel(family, str(folder), None, 1, None, 0, None, None, None, False)
    try:
        checkpoint = model.checkpoint(0)
        for layers in ([1], [2, 3]):
            found = ResidualReader(checkpoint, layers, torch.float32, CPU).read(IDS)
            expected = outputs(lm)
            for layer in layers:
                torch.testing.assert_close(found[layer], expected[layer - 1], rtol=1e-5, atol=1e-6)
    except Refused as refused:
        if "a later token changes" in str(refused):
            assert looks_ahead(lm), f"{family} was refused as no decoder-only LM, but is one"
            return "looks ahead"
        return f"refused: {refused}"
    assert not looks_ahead(lm), f"{family} was read, but its tokens look ahead"
    return "read"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of transformers, about its own families
@pytest.mark.parametrize("part", range(PARTS))
def test_families_are_read_as_hooks_of_our_own_read_them_and_those_that_look_ahead_are_refused(
    part: int, tmp_path: Path
) -> None:
    found = {family: outcome(family, tmp_path / family) for family in families()[part::PARTS]}
    read = [*found.values()].count("read")
    assert read >= math.ceil(AT_LEAST / PARTS), "\n".join(f"{family}: {said}" for family, said in found.items())
