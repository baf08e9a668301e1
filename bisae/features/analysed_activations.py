"""Read the LM's activations on an analysed text, one window of rows after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import BFloat16, Int64
from torch import Tensor

from bisae.activations.store import Activations, Source, Store
from bisae.features.tokens import Tokens
from bisae.runtime.progress import tokens_bar
from bisae.runtime.ranks import ALONE

WINDOW = 2**16  # rows: 128 MiB of a layer of width 1024


@dataclass(frozen=True, eq=False)
class AnalysedActivations:
    """The activations of `source` at `layers` on `tokens`. They can be read any number of times."""

    source: Source
    tokens: Tokens
    layers: Sequence[int]
    activations: Activations

    @classmethod
    def open(
        cls, store: Store, source: Source, tokens: Tokens, layers: Sequence[int], title: str
    ) -> "AnalysedActivations":
        """Open the activations in `store`, which computes those that it does not have; shows a progress bar."""
        with tokens_bar(title) as progress:
            opened = store.open(source, layers, len(tokens), title.replace(" ", "-"), ALONE, progress)
        return cls(source, tokens, layers, opened)

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
        for here, following in zip(windows, [*windows[1:], None], strict=False):
            rows = _between(wanted, *here)
            at_hand = self.activations.window(*here, lambda rows=rows: rows, following)  # type: ignore[misc]
            values = {}
            for layer in layers:
                values[layer] = torch.empty(len(rows), self.activations.d_model, dtype=torch.bfloat16)
                at_hand.gather_ascending(layer, rows, values[layer])
            yield rows, values

    def close(self) -> None:
        """Free the activations and the LM; nothing can be read afterwards."""
        self.activations.close(finished=True)
        self.source.release()


def _between(rows: Int64[np.ndarray, " row"], start: int, stop: int) -> Int64[np.ndarray, " some"]:
    return rows[slice(*np.searchsorted(rows, (start, stop)))]
