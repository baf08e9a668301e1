"""The language model as a source of residual streams: hooks, cut at the deepest layer asked for, no LM head."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

from bisae.errors import ConfigError
from bisae.lm.model import Checkpoint


def stream_of(output: Tensor | tuple[Any, ...]) -> Tensor:
    """The residual stream in a decoder block's output: a tensor in transformers 5, the first of a tuple before."""
    return output if isinstance(output, Tensor) else output[0]


def hooked(block: nn.Module, hook: str | None) -> nn.Module:
    """The module in a decoder block whose output is read: the block itself, or the one at `hook`."""
    try:
        return block.get_submodule(hook or "")
    except AttributeError:
        paths = ", ".join(path for path, _ in block.named_modules() if path)
        raise ConfigError("model.hook", hook, f"is no part of a {type(block).__name__}; it has {paths}") from None


def check_complete(checkpoint: Checkpoint, loading: Mapping[str, Any]) -> None:
    """ConfigError if transformers, by its loading info, would draw some weights at random."""
    if missing := sorted(loading["missing_keys"]):
        raise ConfigError("model.path", checkpoint.folder, f"lacks {len(missing)} weights, such as {missing[0]}")


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The list of decoder blocks of a backbone, whatever its family calls it."""
    depth = model.config.num_hidden_layers
    found = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if not found:
        raise ValueError(f"{type(model).__name__}: no list of {depth} decoder blocks found")
    return found[0]


class ResidualReader:
    """Reads the residual stream of one checkpoint at several layers in one pass.

    Layer L >= 1 is the output of decoder block L, before the final norm; layer 0 is what enters the first block. With
    `checkpoint.hook`, layer L is the output of that part of block L, and ConfigError is raised for layer 0, for a part
    there is not, and, by `read`, for one that is not as wide as the stream.
    """

    def __init__(self, checkpoint: Checkpoint, layers: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.layers, self.device, self._width = tuple(layers), device, checkpoint.d_model
        if checkpoint.hook and 0 in layers:
            raise ConfigError("layer", 0, f"is no decoder block, which model.hook={checkpoint.hook} would be a part of")
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()  # else a report that the LM head is left out
        remote = checkpoint.trust_remote_code
        self.model, loading = AutoModel.from_pretrained(
            checkpoint.folder, dtype=dtype, trust_remote_code=remote, output_loading_info=True
        )
        check_complete(checkpoint, loading)
        blocks = decoder_blocks(self.model)
        del blocks[max(1, *layers) :]  # the rest of the forward would be thrown away
        self.model.config.num_hidden_layers = len(blocks)
        self.model.to(device).eval()
        self._streams: dict[int, Tensor] = {}
        for layer in layers:
            if layer == 0:
                blocks[0].register_forward_pre_hook(self._keep_input, with_kwargs=True)
            else:
                hooked(blocks[layer - 1], checkpoint.hook).register_forward_hook(self._keep_output(layer))

    def _keep_input(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._streams[0] = args[0] if args else kwargs["hidden_states"]

    def _keep_output(self, layer: int) -> Any:
        def keep(module: nn.Module, _: Any, output: Any) -> None:
            found = self._streams[layer] = stream_of(output)
            if found.shape[-1] != self._width:
                wide = f"gives vectors of {found.shape[-1]}; only parts that write to the stream, {self._width} wide"
                raise ConfigError("model.hook", type(module).__name__, wide)

        return keep

    @torch.no_grad()
    def read(self, ids: Int[Tensor, "sequence position"]) -> dict[int, Float[Tensor, "sequence position d_model"]]:
        """The stream at each layer. Padding must stand behind the text, where a causal LM never looks back from."""
        self._streams = {}
        self.model(input_ids=ids.to(self.device), use_cache=False)
        return self._streams
