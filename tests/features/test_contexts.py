import math
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bisae.features import analysed_activations as reading_module
from bisae.features import read_contexts as read_module
from bisae.features.analysed_activations import AnalysedActivations
from bisae.features.codes import encode
from bisae.features.contexts import Paper, Patterns, Peaks, Quantile, Top
from bisae.features.read_contexts import FeatureContexts, WantedContexts, read_contexts
from bisae.features.steps import stored
from bisae.runtime.errors import Refused
from bisae.sae import TopK
from tests.features.small_text import random_sae, reading_of, tokens_of

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=25)


def chosen(rule: Patterns, reading: AnalysedActivations, sae: TopK) -> FeatureContexts:
    values = next(reading.rows(np.arange(len(reading.tokens)), [2]))[1][2]
    found = encode(sae, 0, values)
    peaks = Peaks.of(found.firings, reading.tokens.sequence)
    picked = rule.chosen(peaks, found.maximum)
    return read(reading, sae, peaks.latent[picked], peaks.sequence[picked])


def read(reading: AnalysedActivations, sae: TopK, latent: np.ndarray, sequence: np.ndarray) -> FeatureContexts:
    return read_contexts(reading, [WantedContexts(2, sae, latent, sequence, len(latent), Path(gettempdir()))])[0][0]


def v1(reading: AnalysedActivations, sae: TopK, share: float, contexts: int) -> list[tuple[int, int, list[int]]]:
    """(latent, sequence, stored values) by the study's two passes over dense activations."""
    values = next(reading.rows(np.arange(len(reading.tokens)), [2]))[1][2]
    before = sae.pre_activations(sae.normalize(values)[0]).detach()
    kept = sae.encode(values).dense().detach()
    borders = reading.tokens.borders
    found = []
    for latent in range(sae.latents):
        largest = max(0.0, float(before[:, latent].max()))
        sequences = []
        for number, (start, stop) in enumerate(zip(borders, borders[1:], strict=False)):
            if (kept[start:stop, latent] > torch.tensor(share) * torch.tensor(largest)).any():
                sequences.append((number, before[start:stop, latent].tolist()))
        sequences = sequences[:contexts]
        top = max((max(raw) for _, raw in sequences), default=0.0)
        for number, raw in sequences:
            stored = [0 if a < 0 else math.ceil(round(10 * a / top, 4)) for a in raw]
            found.append((latent, number, stored))
    return found


@given(LENGTHS, st.integers(0, 5), st.sampled_from([1, 3, 50]))
def test_the_papers_contexts_are_those_of_its_two_passes(lengths: list[int], seed: int, contexts: int) -> None:
    reading, sae = reading_of(tokens_of(lengths), seed=seed), random_sae(seed=seed)
    found = chosen(Paper(contexts, 0.7), reading, sae)
    expected = v1(reading, sae, 0.7, contexts)
    assert list(zip(found.latent.tolist(), found.sequence.tolist(), strict=True)) == [row[:2] for row in expected]
    for number, (_, _, of_v1) in enumerate(expected):
        values = found.values[found.offsets[number] : found.offsets[number + 1]].tolist()
        assert np.abs(np.subtract(values, of_v1)).max() <= 1  # ceil, of numbers that differ in the last bits
        assert int(found.peak[number]) == values.index(max(values))


@given(LENGTHS, st.integers(0, 5), st.integers(1, 4))
def test_top_contexts_are_the_strongest_sequences_in_order(lengths: list[int], seed: int, contexts: int) -> None:
    reading, sae = reading_of(tokens_of(lengths), seed=seed), random_sae(seed=seed)
    found = chosen(Top(contexts), reading, sae)
    dense = sae.encode(next(reading.rows(np.arange(sum(lengths)), [2]))[1][2]).dense().detach()
    peaks = torch.stack(
        [dense[a:b].amax(0) for a, b in zip(np.r_[0, np.cumsum(lengths)], np.cumsum(lengths), strict=False)]
    )
    for latent in range(sae.latents):
        of_latent = found.sequence[found.latent == latent].tolist()
        assert len(of_latent) == min(contexts, int((peaks[:, latent] > 0).sum()))
        best = peaks[:, latent].sort(descending=True, stable=True).indices[: len(of_latent)].tolist()
        assert of_latent == best
    assert found.rank.tolist() == [n for latent in range(10) for n in range((found.latent == latent).sum())]


def test_quantiles_reach_from_the_strongest_to_the_weakest_firing() -> None:
    reading, sae = reading_of(tokens_of([3] * 200)), random_sae()
    found, everything = chosen(Quantile(8, 4), reading, sae), chosen(Top(200), reading, sae)
    often = np.flatnonzero(np.bincount(everything.latent) >= 16)
    assert len(often) > 5
    for latent in often:
        ordered = everything.sequence[everything.latent == latent].tolist()
        places = [ordered.index(sequence) * 4 // len(ordered) for sequence in found.sequence[found.latent == latent]]
        assert places == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_sequence_cut_by_two_windows_is_read_whole_and_only_chosen_sequences_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, sae = reading_of(tokens_of([5, 4, 6, 3])), random_sae()
    latent, sequence = np.array([1, 1, 8]), np.array([1, 2, 2], np.int32)
    whole = read(reading, sae, latent, sequence)
    monkeypatch.setattr(reading_module, "WINDOW", 7)
    asked = reading.activations.asked = []  # type: ignore[attr-defined]
    cut = read(reading, sae, latent, sequence)
    assert np.array_equal(whole.values, cut.values) and len(whole.values) == 4 + 6 + 6
    assert asked == [[5, 6], [7, 8, 9, 10, 11, 12, 13], [14]]


def test_features_without_a_firing_have_no_contexts(tmp_path: Path) -> None:
    reading, sae = reading_of(tokens_of([5, 4])), random_sae()
    with torch.no_grad():
        sae.b_enc.fill_(-1000.0)
    found = chosen(Paper(50, 0.7), reading, sae)
    assert len(found.latent) == len(found.values) == 0


@pytest.mark.parametrize(("make", "field"), [(lambda: Paper(50, 1.0), "share"), (lambda: Quantile(50, 7), "quantiles")])
def test_values_that_cannot_work_are_refused(make: object, field: str) -> None:
    with pytest.raises(Refused, match=f"^{field}="):
        make()  # type: ignore[operator]


@given(LENGTHS, st.integers(0, 5), st.floats(0.0, 3.0))
def test_steps_hold_the_first_largest_stored_value_at_any_scale(lengths: list[int], seed: int, scale: float) -> None:
    reading, sae = reading_of(tokens_of(lengths), seed=seed), random_sae(seed=seed)
    latent, sequence = (grid.ravel() for grid in np.mgrid[:10, : len(lengths)])
    cell = WantedContexts(2, sae, latent, sequence.astype(np.int32), 0, Path(gettempdir()))
    ((_, steps),) = read_contexts(reading, [cell])
    values = next(reading.rows(np.arange(sum(lengths)), [2]))[1][2]
    before = sae.pre_activations(sae.normalize(values)[0]).detach().numpy()
    largest = np.maximum(before.max(0), 0)
    scales = np.minimum(np.float32(scale), largest)  # of some of the latent's contexts, so no larger
    found = steps.position[steps.first_largest(np.arange(len(latent)), scales)]
    for pair, position in enumerate(found):
        rows = slice(*reading.tokens.borders[sequence[pair] : sequence[pair] + 2])
        raw = before[rows, latent[pair]]
        shown = stored(raw, np.full(len(raw), scales[latent[pair]]))
        assert shown[position] >= shown.max() - 1 and position <= int(raw.argmax())  # ceil, in the last bits
        if np.abs(10 * raw / max(scales[latent[pair]], 1e-9) % 1 - 0.5).max() < 0.499:
            assert position == int(shown.argmax())


def test_contexts_that_need_too_much_memory_wait_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, sae = reading_of(tokens_of([5, 4, 6, 3, 7])), random_sae()
    latent, sequence = np.repeat(np.arange(10), 3), np.tile(np.array([1, 3, 4], np.int32), 10)
    cell = WantedContexts(2, sae, latent, sequence, len(latent), tmp_path)
    held = read_contexts(reading, [cell])[0][0]
    monkeypatch.setattr(read_module, "IN_RAM", 64)
    monkeypatch.setattr(read_module, "VALUES", 20)
    in_file = read_contexts(reading, [cell])[0][0]
    assert all(np.array_equal(getattr(held, name), getattr(in_file, name)) for name in ("values", "peak", "offsets"))
    assert not list(tmp_path.iterdir())


def test_cells_that_are_read_together_get_what_each_gets_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "WINDOW", 7)
    reading, saes = reading_of(tokens_of([5, 4, 6, 3, 7])), [random_sae(), random_sae(latents=12, seed=1), random_sae()]
    pairs = [([1, 1, 8], [1, 4, 2]), ([0, 3, 11], [0, 1, 4]), ([], [])]
    cells = [
        WantedContexts(2, sae, np.array(latent, np.int64), np.array(sequence, np.int32), min(2, len(latent)), tmp_path)
        for sae, (latent, sequence) in zip(saes, pairs, strict=True)
    ]
    asked: list[list[int]] = []
    reading.activations.asked = asked  # type: ignore[attr-defined]
    together = read_contexts(reading, cells)
    assert len(asked) == len(reading.windows)
    for cell, (contexts, steps) in zip(cells, together, strict=True):
        ((alone, alone_steps),) = read_contexts(reading, [cell])
        for name in ("latent", "sequence", "peak", "activation", "offsets", "values"):
            np.testing.assert_array_equal(getattr(contexts, name), getattr(alone, name))
        for name in ("latent", "offsets", "position", "value"):
            np.testing.assert_array_equal(getattr(steps, name), getattr(alone_steps, name))


def test_what_is_held_is_not_read_again() -> None:
    reading = reading_of(tokens_of([5, 4, 6]))
    held = replace(reading, held={})
    asked: list[list[int]] = []
    reading.activations.asked = asked  # type: ignore[attr-defined]
    whole, some = np.arange(15), np.array([2, 9, 14])
    for _ in range(2):
        ((rows, values),) = held.rows(some, [2])  # a part of a window is not held
        np.testing.assert_array_equal(rows, some)
    ((_, everything),) = held.rows(whole, [2])
    for wanted in (whole, some):
        ((rows, values),) = held.rows(wanted, [2])
        np.testing.assert_array_equal(rows, wanted)
        assert torch.equal(values[2], everything[2][torch.from_numpy(wanted)])
    assert len(asked) == 3
