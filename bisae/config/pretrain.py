"""The settings of `pretrain`."""

from typing import Literal

from bisae.config.settings import Command, Keys, NotNegativeFloat, PositiveFloat, ShareFloat
from bisae.runtime.ranges import Count, Index, Name, Text


class PairFiles(Keys):
    lm: Text | None
    validation: Text | None


class TokenizerKeys(Keys):
    vocabulary: Count
    alphabet: Count


class LexiconKeys(Keys):
    together: Count
    dice: ShareFloat


class MixKeys(Keys):
    pair: ShareFloat
    code_switched: ShareFloat
    swap: ShareFloat
    plain: list[ShareFloat]
    keep_kinds: bool
    unpaired: bool


class LlamaKeys(Keys):
    d_model: Count
    layers: Count
    heads: Count
    ffn: Count
    tied: bool


class ScheduleKeys(Keys):
    steps: Count
    batch: Count
    context: Count
    learning_rate: PositiveFloat
    warmup: Index
    weight_decay: NotNegativeFloat
    clip: PositiveFloat
    precision: Literal["bf16-mixed", "32-true"]
    attention: Literal["sdpa", "eager"]


class PretrainTrainerKeys(Keys):
    accelerator: Literal["auto", "cpu", "gpu", "cuda"]
    save_every: Count
    held_out_every: Index


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
