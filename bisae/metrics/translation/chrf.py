"""chrF by sacrebleu."""

from typing import Any

from sacrebleu.metrics.chrf import CHRF

from bisae.metrics.translation.ngrams import NgramMetric
from bisae.runtime.ranges import Index


class Chrf(NgramMetric):
    """chrF, 0 to 100, the same for all languages. `word_order` 2 is chrF++, of no use for text without spaces."""

    def __init__(self, word_order: Index, **options: Any) -> None:
        self._word_order = word_order
        super().__init__(**options)

    def metric(self, language: str, sentence: bool) -> CHRF:
        return CHRF(word_order=self._word_order)
