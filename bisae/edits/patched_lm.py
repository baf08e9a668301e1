"""Edit the residual stream of an LM in its forward passes, also while it generates."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from bisae.edits.operation import Edit, StreamPair
from bisae.lm.generation import can_cache
from bisae.lm.probe import decoder_blocks, stream_of
from bisae.lm.residual import ResidualReader, hooked

REMEMBERED = 2**30  # bytes of streams
Places = Callable[[Tensor, Tensor | None], Tensor]  # [sequence, position] ids and attention mask -> bool


class DonorReader(ResidualReader):
    """The donor LM, cut after the deepest of `layers`. It has its own key-value cache while the recipient generates.

    It keeps the streams of whole texts, up to `REMEMBERED` bytes, because every intervention reads the same texts.
    """

    _cache: DynamicCache | None = None
    _left = REMEMBERED

    @torch.no_grad()
    def follow(self, seen: int, use_cache: bool, **inputs: Tensor | None) -> dict[int, Float[Tensor, "..."]]:
        """Read the tokens that the recipient reads now.

        Args:
            seen: how many tokens the recipient's key-value cache holds already.
            use_cache: whether the recipient uses one.
            inputs: `input_ids`, `attention_mask` and `position_ids`, [sequence, position], as the recipient gets them.

        Returns:
            The donor's stream by layer, [sequence, position, d_model].

        Raises:
            ValueError: the donor has not read the tokens before these.
        """
        if seen == 0:  # a cache made here, since a pass that ends early returns none
            self._cache = DynamicCache(config=self.model.config) if use_cache and can_cache(self.model) else None
        elif self._cache is None or self._cache.get_seq_length() != seen:
            raise ValueError(f"the recipient goes on after {seen} tokens that the donor has not read")
        text = None if use_cache else tuple((name, content(values)) for name, values in inputs.items())
        if text in self._remembered:
            return self._remembered[text]
        known = inspect.signature(self.model.forward).parameters
        taken: dict[str, Any] = {name: value for name, value in inputs.items() if value is not None and name in known}
        if self._cache is not None:
            taken["past_key_values"] = self._cache
        streams = self._pass(taken["input_ids"].shape, **taken, use_cache=self._cache is not None)
        if text is not None and (size := sum(stream.nbytes for stream in streams.values())) <= self._left:
            self._left -= size
            self._remembered[text] = streams
        return streams

    def follow_beams(self, past: Any) -> None:
        """Let the donor's key-value cache change places whenever the recipient's `past` does, as in beam search."""
        if self._cache is None or "reorder_cache" in vars(past):
            return
        reorder = past.reorder_cache

        def both(beam_idx: Any) -> None:
            reorder(beam_idx)
            if self._cache is not None:
                self._cache.reorder_cache(beam_idx)

        vars(past)["reorder_cache"] = both

    @cached_property
    def _remembered(self) -> dict[Any, dict[int, Tensor]]:
        return {}


class StreamChange(NamedTuple):
    """Size of an edit at one layer: mean of ||new - old|| / ||old|| over tokens, and share of tokens changed."""

    size: float
    touched: float


class Patch:
    """State shared by the forward hooks of one patched LM. `change(layer)` measures the edits since the patch began."""

    def __init__(
        self, edits: Mapping[int, Edit], donor: DonorReader | None, special: Tensor, places: Places | None
    ) -> None:
        self.edits, self.donor, self.special, self.places = edits, donor, special, places
        self._sums = {layer: torch.zeros(3, dtype=torch.float64, device=special.device) for layer in edits}
        self._kept: Bool[Tensor, "sequence position"]
        self._donated: dict[int, Tensor] = {}

    def change(self, layer: int) -> StreamChange:
        """The change of the stream at `layer`; both numbers are NaN before any token was edited."""
        size, touched, tokens = self._sums[layer]
        return StreamChange((size / tokens).item(), (touched / tokens).item())

    def begin(self, _: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        """Hook before the LM's forward pass: find the tokens to edit, and let the donor read the same tokens."""
        ids = args[0] if args else inputs["input_ids"]
        mask = inputs.get("attention_mask")
        self._kept = ~torch.isin(ids, self.special)
        if mask is not None:
            self._kept &= mask[:, -ids.shape[1] :].bool()
        if self.places is not None:
            self._kept &= self.places(ids, mask)
        if self.donor is not None:
            past = inputs.get("past_key_values")
            self._donated = self.donor.follow(
                0 if past is None else past.get_seq_length(),
                inputs.get("use_cache", True),
                input_ids=ids,
                attention_mask=mask,
                position_ids=inputs.get("position_ids"),
            )
            if past is not None:
                self.donor.follow_beams(past)

    def edited(self, layer: int, stream: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        # Some parts of a block return [token, d_model] without the axis of sequences; see `bisae.lm.residual`.
        shaped = stream.reshape(*self._kept.shape, stream.shape[-1])
        old = shaped[self._kept]
        if not len(old):
            return stream
        donor = self._donated[layer][self._kept] if self.donor else None
        new = self.edits[layer](StreamPair(old, donor, self._kept)).to(old.dtype)
        changed, whole = (torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32) for rows in (new - old, old))
        size = (changed / whole).double()
        self._sums[layer] += torch.stack([size.sum(), (size > 0).sum(), torch.ones_like(size).sum()])
        return shaped.masked_scatter(self._kept[..., None], new).view(stream.shape)


@contextmanager
def patched(
    lm: PreTrainedModel,
    edits: Mapping[int, Edit],
    donor: DonorReader | None,
    special: Collection[int],
    hook: str | None = None,
    places: Places | None = None,
) -> Iterator[Patch]:
    """Context in which `lm(...)` and `lm.generate(...)` run with an edited residual stream.

    Beams change places, and the donor's cache with them. Without edits nothing is hooked, and the LM is the plain one.

    Args:
        lm: the recipient.
        edits: the edit at each layer; layer 0 is the input of the first block, layer n the output of block n.
        donor: reads what the LM reads: right- or left-padded, whole or token by token with its own cache. Its layers
            must include those of the edits. None for edits without a donor.
        special: ids of tokens that are not edited (BOS); padding, by `attention_mask`, is not edited either.
        hook: edit the output of this part of each layer's block instead of the residual stream.
        places: marks the only tokens to edit in a batch of ids with its attention mask; None: all others are edited.
    """
    patch = Patch(edits, donor, torch.tensor(sorted(special), dtype=torch.int64, device=lm.device), places)
    blocks = decoder_blocks(lm)
    with ExitStack() as hooks:
        if edits:
            hooks.enter_context(lm.register_forward_pre_hook(torch.no_grad()(patch.begin), with_kwargs=True))
        for layer in edits:
            if layer == 0:
                added = blocks[0].register_forward_pre_hook(_on_input(patch), with_kwargs=True)
            else:
                added = hooked(blocks[layer - 1], hook).register_forward_hook(_on_output(patch, layer))
            hooks.enter_context(added)
        yield patch


def _on_input(patch: Patch) -> Any:
    @torch.no_grad()
    def change(_: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (patch.edited(0, args[0]), *args[1:]), inputs
        return args, {**inputs, "hidden_states": patch.edited(0, inputs["hidden_states"])}

    return change


def _on_output(patch: Patch, layer: int) -> Any:
    @torch.no_grad()
    def change(_: nn.Module, __: Any, output: Any) -> Any:
        stream = patch.edited(layer, stream_of(output))
        return stream if isinstance(output, Tensor) else (stream, *output[1:])

    return change


def content(values: Tensor | None) -> Any:
    """The shape and bytes of a tensor of ids or masks, as a key of a dictionary."""
    return values if values is None else (tuple(values.shape), values.cpu().numpy().tobytes())
