"""The settings of `pretrain`."""

from typing import Literal

from bisae.config.settings import Command, Keys
from bisae.runtime.ranges import Count, Index, Name, NotNegative, Positive, Share, Text


class PairFiles(Keys):
    lm: Text | None
    validation: Text | None


class TokenizerKeys(Keys):
    vocabulary: Count
    alphabet: Count


class LexiconKeys(Keys):
    together: Count
    dice: Share


class MixKeys(Keys):
    pair: Share
    code_switched: Share
    swap: Share


class LlamaKeys(Keys):
    d_model: Count
    layers: Count
    heads: Count
    ffn: Count


class ScheduleKeys(Keys):
    steps: Count
    batch: Count
    context: Count
    learning_rate: Positive
    warmup: Index
    weight_decay: NotNegative
    clip: Positive
    precision: Literal["bf16-mixed", "32-true"]


class PretrainTrainerKeys(Keys):
    accelerator: Literal["auto", "cpu", "gpu", "cuda"]
    save_every: Count


class PretrainSettings(Command):
    name: Name
    out: Text
    seed: Index
    corpus: PairFiles
    tokenizer_folder: Text | None
    tokenizer: TokenizerKeys
    lexicon: LexiconKeys
    mix: MixKeys
    size: LlamaKeys
    schedule: ScheduleKeys
    checkpoints: list[Index]
    trainer: PretrainTrainerKeys
