"""What is measured on a few tokens before an LM is read: that it is decoder-only, and that its blocks make one stream.

Measured, not looked up: it holds for families that nobody listed, and for a folder's own code.
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
    """The configuration of the text decoder, which in a model of several parts is one of many."""
    return model.config.get_text_config(decoder=True)


def stream_of(output: Tensor | tuple[Any, ...]) -> Tensor:
    """The residual stream in a decoder block's output: a tensor in transformers 5, the first of a tuple before."""
    return output if isinstance(output, Tensor) else output[0]


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The list of decoder blocks of an LM or its backbone, whatever its family calls it; never another tower's.

    ValueError where there is none.
    """
    depth = getattr(text_config(model), "num_hidden_layers", None)
    found = [m for m in model.get_decoder().modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if not found:
        raise ValueError(f"{type(model).__name__} has no list of {depth} decoder blocks")
    return found[0]


def probe_ids(config: Any) -> Int[Tensor, "row position"]:
    """One text in the last row; row p is the same up to position p, and other tokens from there on.

    There is a row more than positions, so that an LM that puts positions first is noticed. Special tokens, which may
    stand for a picture or be masked, are left out.
    """
    named = [value for key, value in config.to_dict().items() if "token_id" in key or "token_index" in key]
    special = {one for value in named for one in (value if isinstance(value, list) else [value])}
    usable = torch.tensor([one for one in range(config.vocab_size) if one not in special])
    first, other = usable[torch.linspace(0, len(usable) - 1, 2 * LENGTH).long()].view(2, LENGTH)
    return torch.where(torch.arange(LENGTH) < torch.arange(LENGTH + 1)[:, None], first, other)


@torch.no_grad()
def leaked(model: PreTrainedModel) -> float:
    """How much activations change at a position when only later tokens do, by the change at the first of these.

    The largest over all blocks and positions: 0 in a decoder-only LM, but for rounding.

    ValueError if the LM asks for more than token ids, or if what was taken for the list of blocks is none: not each of
    them runs once, on what the one before it puts out, and puts out a vector a token.
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
