"""A tiny made-up language pair, and the smallest ladder that can be trained on it."""

from pathlib import Path

from bisae.corpus.pairs import Pair, write_pairs

NOUNS = {"dog": "犬", "cat": "猫", "book": "本", "sea": "海", "tree": "木", "car": "車"}
ADJECTIVES = {"big": "大きい", "old": "古い", "red": "赤い", "new": "新しい", "good": "いい"}

SMALL = [
    "tokenizer.vocabulary=330",
    "tokenizer.alphabet=60",
    "lexicon.together=4",
    "size={d_model: 16, layers: 1, heads: 2, ffn: 24}",
    "schedule.steps=12",
    "schedule.batch=2",
    "schedule.context=16",
    "schedule.warmup=3",
    "schedule.precision=32-true",
    "checkpoints=[0,3,7,12]",
    "trainer.accelerator=cpu",
    "trainer.save_every=4",
    "trainer.held_out_every=5",
]


def toy_pairs() -> list[Pair]:
    """Ninety pairs, every noun with every adjective in three tones."""
    texts = [
        (f"The {noun} is {adjective}{'!' * tone}.", f"その{NOUNS[noun]}は{ADJECTIVES[adjective]}です{'！' * tone}。")
        for tone in range(3)
        for noun in NOUNS
        for adjective in ADJECTIVES
    ]
    return [Pair(number, text) for number, text in enumerate(texts, start=1)]


def toy_corpus(folder: Path) -> list[str]:
    """Write the corpus into `folder`; the overrides that name it."""
    write_pairs(folder / "lm.tsv", ("en", "ja"), toy_pairs())
    write_pairs(folder / "validation.tsv.xz", ("en", "ja"), toy_pairs()[:14])
    return [f"corpus.lm={folder / 'lm.tsv'}", f"corpus.validation={folder / 'validation.tsv.xz'}"]
