"""Measure on a few tokens that an LM is decoder-only and that its blocks write to one residual stream.

A measurement also holds for LM families that no list names, and for code that comes with an LM.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from bisae.runtime.errors import explained

# Of a change. Causal LMs give 0 in all families tried but some mixtures of experts, whose products in float32 differ by
# 1e-6; encoders at random weights, of which no token listens much to another, give 4e-3 and more.
ROUNDING = 1e-4
LENGTH = 8


def text_config(model: PreTrainedModel) -> Any:
    """Return the configuration of the text decoder; a model that reads pictures has other parts too."""
    return model.config.get_text_config(decoder=True)


def stream_of(output: Tensor | tuple[Any, ...]) -> Tensor:
    """Return the residual stream in a decoder block's output: a tensor in transformers 5, a tuple's first before."""
    return output if isinstance(output, Tensor) else output[0]


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Return the decoder blocks of an LM or of its backbone, whatever its family calls them.

    Raises ValueError if the LM has no list of `num_hidden_layers` modules.
    """
    depth = getattr(text_config(model), "num_hidden_layers", None)
    lists = [m for m in model.get_decoder().modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of {depth} decoder blocks")
    return lists[0]


def probe_ids(config: Any) -> Int[Tensor, "row position"]:
    """Return ids of one text in the last row; row p has the same tokens before position p, and others from there on.

    There is one row more than positions, so that an LM that puts positions first is noticed. Special tokens are left
    out: they may stand for a picture, or be masked.
    """
    named = [value for key, value in config.to_dict().items() if "token_id" in key or "token_index" in key]
    special = {token for value in named for token in (value if isinstance(value, list) else [value])}
    usable = torch.tensor([token for token in range(config.vocab_size) if token not in special])
    first, other = usable[torch.linspace(0, len(usable) - 1, 2 * LENGTH).long()].view(2, LENGTH)
    return torch.where(torch.arange(LENGTH) < torch.arange(LENGTH + 1)[:, None], first, other)


@torch.no_grad()
def leaked(model: PreTrainedModel) -> float:
    """Measure how much activations change when only later tokens change.

    Returns:
        The change at an earlier position, divided by the change at the first changed token; the largest over all blocks
        and positions. It is 0 in a decoder-only LM, apart from rounding.

    Raises:
        ValueError: The LM needs more than token ids, or its list of blocks is not a stack of decoder blocks: each must
            run once, read the output of the block before it, and give one vector for each token.
    """
    blocks, ids = decoder_blocks(model), probe_ids(text_config(model))
    given: dict[int, list[Tensor]] = {number: [] for number in range(len(blocks))}
    put_out: dict[int, list[Tensor]] = {number: [] for number in given}

    def keep_both(number: int) -> Any:
        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given[number].append(args[0] if args else kwargs["hidden_states"])
            put_out[number].append(stream_of(output))

        return keep

    hooks = [block.register_forward_hook(keep_both(n), with_kwargs=True) for n, block in enumerate(blocks)]
    try:
        model(input_ids=ids, use_cache=False)
    except Exception as error:
        raise error if explained(error) else ValueError(f"it does not run on token ids alone: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    name = type(blocks[0]).__name__
    for number, outputs in put_out.items():
        if len(outputs) != 1:
            raise ValueError(f"{name} {number + 1} of {len(blocks)} runs {len(outputs)} times on a text, not once")
        if outputs[0].dim() != 3 or outputs[0].shape[:2] != ids.shape:
            shape = list(outputs[0].shape)
            raise ValueError(f"each {name} puts out {shape} for {list(ids.shape)} tokens, not one vector a token")
        if number and not torch.allclose(given[number][0], put_out[number - 1][0], rtol=1e-3, equal_nan=True):
            raise ValueError(f"{name} {number + 1} does not read what the one before it puts out")
    return max(_leaked(outputs[0].double()) for outputs in put_out.values())


def _leaked(stream: Float[Tensor, "row position d_model"]) -> float:
    change = torch.linalg.vector_norm(stream - stream[-1], dim=-1).nan_to_num()  # overflow is seen in training
    row, position = torch.arange(LENGTH + 1)[:, None], torch.arange(LENGTH)
    earlier, own = change[position < row].max(), change[position == row].max()
    return (earlier / own).item() if own > 0 else 0.0
