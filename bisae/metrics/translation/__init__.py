"""Metrics of translations as `evaluate.Metric` classes that need no hub.

`compute(predictions=, references=, ...)` returns `score` (of all examples), `segments` (one score for each example),
`signature`, and, given `weights` [resample, example] (how often a resample counts an example), `resampled`: the score
of each resample.
"""

from typing import Protocol, runtime_checkable


@runtime_checkable
class MeanOfSegments(Protocol):
    """A metric whose score is the mean over examples; its `signature` names all settings that change a score."""

    @property
    def signature(self) -> str: ...


class MetricUnavailable(RuntimeError):
    """A program or model that a metric needs is not on this machine; the message says what to do."""
