"""Corpus scores of sacrebleu from its counts in each example: a resample then costs only a sum."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import evaluate
import numpy as np
from sacrebleu.metrics.base import Metric

from bisae.metrics.translation.information import info


class NgramMetric(evaluate.Metric, ABC):
    """An `evaluate.Metric` that computes one of sacrebleu's metrics."""

    @abstractmethod
    def metric(self, language: str, sentence: bool) -> Metric:
        """sacrebleu's metric for a language; `sentence`: to score one example instead of a corpus."""

    def _info(self) -> evaluate.MetricInfo:
        return info(type(self), "predictions", "references")

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        language: str | None = None,
        weights: np.ndarray | None = None,
    ) -> dict[str, Any]:
        corpus, sentence = (self.metric(language or "", alone) for alone in (False, True))
        # These methods are not public; sacrebleu's own significance tests resample with them.
        counts = np.array(corpus._extract_corpus_statistics(predictions, [references]))

        def score(metric: Metric, totals: np.ndarray) -> float:
            return float(metric._compute_score_from_stats(totals.tolist()).score)

        scores = {
            "score": score(corpus, counts.sum(0)),
            "segments": [score(sentence, row) for row in counts],
            "signature": str(corpus.get_signature()),
        }
        if weights is not None:
            scores["resampled"] = [score(corpus, row) for row in weights.astype(np.int64) @ counts]
        return scores
