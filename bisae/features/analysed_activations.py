"""Read the LM's activations on an analysed text, one window of rows after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import BFloat16, Int64
from torch import Tensor

from bisae.activations.manifest import BYTES_PER_VALUE
from bisae.activations.store import Activations, RowWindow, Source, Store
from bisae.features.tokens import Tokens
from bisae.runtime.progress import tokens_bar
from bisae.runtime.ranks import ALONE

WINDOW = 2**16  # rows: 128 MiB of a layer of width 1024
HELD = 2**30  # bytes of activations that are held in RAM, where the LM would compute them for each reading


@dataclass(frozen=True, eq=False)
class AnalysedActivations:
    """The activations of `source` at `layers` on `tokens`. They can be read any number of times.

    `held`: what has been read, by window and layer; None if nothing is held.
    """

    source: Source
    tokens: Tokens
    layers: Sequence[int]
    activations: Activations
    held: dict[tuple[int, int], BFloat16[Tensor, "row d_model"]] | None = None

    @classmethod
    def open(
        cls, store: Store, source: Source, tokens: Tokens, layers: Sequence[int], title: str, on_gpu: bool = False
    ) -> "AnalysedActivations":
        """Open the activations in `store`, which computes those that it does not have; shows a progress bar.

        `on_gpu`: whether they are used on a GPU.
        """
        with tokens_bar(title) as progress:
            place = title.replace(" ", "-"), ALONE, progress
            opened = store.open(source, layers, len(tokens), *place, on_gpu=on_gpu)
        few = len(tokens) * source.d_model * BYTES_PER_VALUE * len(layers) <= HELD
        return cls(source, tokens, layers, opened, {} if few and not store.shared else None)

    @property
    def windows(self) -> list[tuple[int, int]]:
        """The first row of each window, and the row after its last one."""
        return [(start, min(start + WINDOW, len(self.tokens))) for start in range(0, len(self.tokens), WINDOW)]

    def rows(
        self, wanted: Int64[np.ndarray, " row"], layers: Sequence[int]
    ) -> Iterator[tuple[Int64[np.ndarray, " row"], dict[int, BFloat16[Tensor, "row d_model"]]]]:
        """Read rows, window by window.

        Args:
            wanted: The rows, in ascending order.
            layers: The layers to read, some of `self.layers`.

        Yields:
            The wanted rows of one window, and for each layer their activations.
        """
        windows = [window for window in self.windows if _between(wanted, *window).size]
        due = [window for window in windows if not self._holds(window[0], layers)]
        asked = [RowWindow(*window, partial(_between, wanted, *window)) for window in due]
        followed_by = dict(zip(due, [*asked[1:], None], strict=False))
        for window in windows:
            rows = _between(wanted, *window)
            if window not in followed_by:
                yield rows, {layer: self._held(window[0], layer, rows) for layer in layers}
                continue
            at_hand = self.activations.window(*window, partial(np.asarray, rows), followed_by[window])
            values = {}
            for layer in layers:
                values[layer] = torch.empty(len(rows), self.activations.d_model, dtype=torch.bfloat16)
                at_hand.gather_ascending(layer, rows, values[layer])
                if self.held is not None and len(rows) == window[1] - window[0]:
                    self.held[window[0], layer] = values[layer]
            yield rows, values

    def _holds(self, start: int, layers: Sequence[int]) -> bool:
        return self.held is not None and all((start, layer) in self.held for layer in layers)

    def _held(self, start: int, layer: int, rows: Int64[np.ndarray, " row"]) -> BFloat16[Tensor, "row d_model"]:
        assert self.held is not None
        return self.held[start, layer][torch.from_numpy(rows - start)]

    def close(self) -> None:
        """Free the activations and the LM; nothing can be read afterwards."""
        if self.held is not None:
            self.held.clear()
        self.activations.close(finished=True)
        self.source.release()


def _between(rows: Int64[np.ndarray, " row"], start: int, stop: int) -> Int64[np.ndarray, " some"]:
    return rows[slice(*np.searchsorted(rows, (start, stop)))]
