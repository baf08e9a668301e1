"""BLEU by sacrebleu, with a tokenizer that can split the language."""

from typing import Any

from sacrebleu.metrics.bleu import BLEU

from bisae.corpus.languages import script_of
from bisae.metrics.translation.ngrams import NgramMetric
from bisae.runtime.errors import Refused

UNSPACED = {  # scripts without spaces between words: sacrebleu's tokenizer of words, or else char
    "Jpan": "ja-mecab",
    **dict.fromkeys(("Hani", "Hans", "Hant"), "zh"),
    **dict.fromkeys(
        ("Hira", "Kana", "Thai", "Laoo", "Khmr", "Mymr", "Tibt", "Lana", "Tale", "Talu", "Tavt", "Java", "Bali"), "char"
    ),
}
ANY = ("char", "spm", "flores101", "flores200", "spBLEU-1K")  # split every script
SPACES = "13a"


class Bleu(NgramMetric):
    """BLEU, 0 to 100. `tokenize`: one of sacrebleu's tokenizers; None: one for the `language` given to `compute`.

    That is ja-mecab for Japanese, zh for Chinese, ko-mecab for Korean, char for other languages without spaces between
    words, else 13a. Segments are sentence BLEU with effective order.
    """

    def __init__(self, tokenize: str | None, **options: Any) -> None:
        self._tokenize = tokenize
        super().__init__(**options)

    def metric(self, language: str, sentence: bool) -> BLEU:
        # force: no warning where texts look tokenized
        return BLEU(tokenize=self._chosen(language), effective_order=sentence, force=True)

    def _chosen(self, language: str) -> str:
        """The tokenizer for a language; Refused if it cannot split the language, or none is known for it."""
        script = script_of(language) if language else "Latn"
        if self._tokenize is None:
            if script is None:
                remedy = f"no tokenizer is known for {language}: give 13a for text with spaces between words, else char"
                raise Refused("tokenize", None, remedy)
            return "ko-mecab" if script == "Kore" else UNSPACED.get(script, SPACES)
        if script in UNSPACED and self._tokenize not in (UNSPACED[script], *ANY):
            remedy = f"cannot split {language}, which has no spaces; give null ({UNSPACED[script]}), char or flores200"
            raise Refused("tokenize", self._tokenize, remedy)
        return self._tokenize
