"""Read the same texts again under edits at one layer: what lies below the edit is computed once for each text.

Bits stay the same: a block gives the stream that it gave for the same text, and codes are those of the same rows.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import xxhash
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from bisae.edits.patched_lm import REMEMBERED, content
from bisae.lm.probe import decoder_blocks, probe_ids, text_config
from bisae.sae import Codes, SparseAutoencoder


class ResumedLM:
    """Lets an LM begin at the output of block `layer`, on texts that it has read whole before.

    It remembers up to `REMEMBERED` bytes of streams. An LM whose upper blocks need more of the lower ones than the
    stream, as its logits on a few tokens tell, always reads from the beginning; so it does with a key-value cache.
    """

    def __init__(self, lm: PreTrainedModel, layer: int) -> None:
        self._lm, self._blocks = lm, list(decoder_blocks(lm))[:layer]
        self._streams: dict[Any, Tensor] = {}
        self._left = REMEMBERED
        self._text: Any = None
        ids = probe_ids(text_config(lm)).to(lm.device)
        with torch.no_grad(), self.reading():
            whole, again = (lm(input_ids=ids, use_cache=False).logits for _ in range(2))
        if not torch.equal(whole, again):
            self._left = 0
        self._streams.clear()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Context in which the LM resumes. Hooks on block `layer` that are added in it see the remembered stream."""
        with ExitStack() as undone:
            undone.enter_context(self._lm.register_forward_pre_hook(self._begin, with_kwargs=True))
            for block in self._blocks:
                last = block is self._blocks[-1]
                vars(block)["forward"] = self._resumed(block.forward, last)
                undone.callback(vars(block).pop, "forward")
                if last:
                    undone.enter_context(block.register_forward_hook(self._keep))
            yield

    def _begin(self, _: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        whole = inputs.get("use_cache", True) or inputs.get("past_key_values") is not None
        texts = [*args, *(inputs.get(name) for name in ("input_ids", "attention_mask", "position_ids"))]
        self._text = None if whole else tuple(map(content, texts))

    def _resumed(self, forward: Callable[..., Any], last: bool) -> Callable[..., Any]:
        def resumed(*args: Any, **inputs: Any) -> Any:
            if self._text not in self._streams:
                return forward(*args, **inputs)
            if last:
                return self._streams[self._text]
            return args[0] if args else inputs["hidden_states"]

        return resumed

    def _keep(self, _: nn.Module, __: Any, output: Any) -> None:
        fits = isinstance(output, Tensor) and output.nbytes <= self._left  # a tuple holds more than the stream
        if self._text is not None and self._text not in self._streams and fits:
            self._left -= output.nbytes
            self._streams[self._text] = output.detach()


class RememberedCodes:
    """An SAE's codes of activations on the CPU, encoded once; `REMEMBERED` bytes of them are kept."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self.sae = sae
        self._kept: dict[bytes, Codes] = {}
        self._left = REMEMBERED

    def __call__(self, rows: Float[Tensor, "token d_model"]) -> Codes:
        if rows.device.type != "cpu":
            return self.sae.encode(rows)
        content = rows.contiguous().view(torch.uint8).numpy().tobytes()
        key = xxhash.xxh3_128_digest(content) + str(tuple(rows.shape)).encode()
        if key not in self._kept:
            codes = self.sae.encode(rows)
            if (size := sum(part.nbytes for part in (codes.values, codes.indices, codes.offsets))) > self._left:
                return codes
            self._left -= size
            self._kept[key] = codes
        return self._kept[key]
