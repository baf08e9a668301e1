"""Metrics of translations as `evaluate.Metric` classes, made without the hub.

`compute(predictions=, references=, ...)` gives `score` of all, `segments` (one score an example), `signature`, and,
with `weights` [resample, example] (how often a resample holds an example), `resampled`: the score of each resample.
"""

from typing import Protocol, runtime_checkable


@runtime_checkable
class MeanOfSegments(Protocol):
    """A metric whose score is the mean of its segments, whatever their order; `signature` says what changes them."""

    @property
    def signature(self) -> str: ...


class MetricUnavailable(RuntimeError):
    """What a metric needs is not on this machine; the message says what to do."""
