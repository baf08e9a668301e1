"""Read residual streams from an LM with hooks. Layers above the deepest requested one and the LM head do not run."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModel

from bisae.lm.loading import load
from bisae.lm.model import Checkpoint
from bisae.lm.probe import decoder_blocks, probe_ids, stream_of, text_config
from bisae.runtime.errors import Refused


def hooked(block: nn.Module, hook: str | None) -> nn.Module:
    """Return the module whose output is read: the decoder block, or its part at the path `hook`."""
    try:
        return block.get_submodule(hook or "")
    except AttributeError:
        paths = ", ".join(path for path, _ in block.named_modules() if path)
        raise Refused("hook", hook, f"is no part of a {type(block).__name__}; it has {paths}") from None


class _DeepEnough(Exception):
    """Ends a forward pass once every requested layer has been read."""


class ResidualReader:
    """Reads the residual stream of one checkpoint at several layers in one pass.

    Layer L >= 1 is the output of decoder block L, before the final norm; layer 0 is the input of the first block. With
    `checkpoint.hook`, layer L is the output of that part of block L.

    Args:
        layers: Layers to read, from 0 to the number of decoder blocks.
        dtype: Data type of the LM's weights and streams.
        device: Device the LM runs on.

    Raises:
        Refused: The LM in `path` cannot be read (see `bisae.lm.loading`), `layer` is 0 although `hook` is given, or the
            part at `hook` does not exist, does not run exactly once in a pass, or does not give a vector of the
            stream's width for each token.
    """

    def __init__(self, checkpoint: Checkpoint, layers: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.layers, self.device = tuple(layers), torch.device("cpu")
        self._checkpoint = checkpoint
        if checkpoint.hook and 0 in layers:
            raise Refused("layer", 0, f"is no decoder block, which hook={checkpoint.hook} would be a part of")
        self.model = load(AutoModel, checkpoint, dtype)
        self._streams: dict[int, Tensor] = {}
        self._ids_shape = torch.Size()
        blocks = decoder_blocks(self.model)
        for layer in layers:
            if layer == 0:
                blocks[0].register_forward_pre_hook(self._keep_input, with_kwargs=True)
            else:
                hooked(blocks[layer - 1], checkpoint.hook).register_forward_hook(self._keep_output(layer))
        self._cut(blocks)
        self.model.to(device)  # type: ignore[arg-type]
        self.device = device

    def _cut(self, blocks: nn.ModuleList) -> None:
        """Remove the blocks above the deepest requested layer, if that changes no result.

        The config keeps its number of layers: some LMs compute with it before their first block (Gemma 4's inputs to
        each layer). An exception ends the pass before the LM looks for removed blocks. Some LMs look for them earlier,
        or compute lower layers from upper ones. They give another result or an error on a few tokens, and run whole.
        """
        ids = probe_ids(text_config(self.model))
        whole = self.read(ids)
        above = list(blocks[max(1, *self.layers) :])
        del blocks[max(1, *self.layers) :]
        stop = blocks[-1].register_forward_hook(self._stop)
        try:
            cut = self.read(ids)
            same = all(torch.allclose(cut[layer], whole[layer], rtol=1e-5, equal_nan=True) for layer in whole)
        except Exception:
            same = False
        if not same:
            stop.remove()
            blocks.extend(above)

    @staticmethod
    def _stop(*_: Any) -> None:
        raise _DeepEnough

    def _keep_input(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._keep(0, args[0] if args else kwargs["hidden_states"])

    def _keep_output(self, layer: int) -> Any:
        return lambda _, __, output: self._keep(layer, stream_of(output))

    def _keep(self, layer: int, stream: Tensor) -> None:
        if layer in self._streams:
            raise self._refused(f"runs more than once in a pass of the LM at layer {layer}")
        width = self._checkpoint.d_model
        wanted = torch.Size([*self._ids_shape, width])
        if stream.shape[-1] != width:
            raise self._refused(
                f"gives vectors of {stream.shape[-1]}; only parts that write to the stream, {width} wide"
            )
        if stream.shape == (self._ids_shape.numel(), width):  # one row after the other, as in OPT's feed-forward part
            stream = stream.view(wanted)
        if stream.shape != wanted:
            raise self._refused(f"gives {list(stream.shape)} for {list(self._ids_shape)} tokens, not a vector for each")
        self._streams[layer] = stream

    def _refused(self, why: str) -> Refused:
        hook, folder = self._checkpoint.hook, self._checkpoint.folder
        return Refused("hook", hook, why) if hook else Refused("path", folder, f"its block {why}")

    @torch.no_grad()
    def read(self, ids: Int[Tensor, "sequence position"]) -> dict[int, Float[Tensor, "sequence position d_model"]]:
        """Return the stream at each layer.

        Padding must stand to the right of the text: a causal LM then never reads it. Any padding id will do.
        """
        return self._pass(ids.shape, input_ids=ids.to(self.device), use_cache=False)

    def _pass(self, shape: torch.Size, **inputs: Any) -> dict[int, Float[Tensor, "sequence position d_model"]]:
        self._streams, self._ids_shape = {}, shape
        with suppress(_DeepEnough):
            self.model(**inputs)
        if silent := sorted(set(self.layers) - set(self._streams)):
            raise self._refused(f"does not run in a pass of the LM at layers {silent}")
        return self._streams
