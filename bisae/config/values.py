"""Config values of the wrong type or range, refused by key before anything else looks at them."""

import math
from collections.abc import Mapping
from typing import Any

from bisae.runtime.errors import ConfigError

WHOLE = {  # key: least value
    "data.tokens": 1,
    "data.validation_tokens": 1,
    "data.epochs": 1,
    "data.batch": 1,
    "data.seed": 0,
    "data.block": 1,
    "data.pool_batches": 1,
    "data.window_pools": 1,
    "corpus.seed": 0,
    "corpus.buffer": 1,
    "activations.pass.context": 1,
    "activations.pass.shortest": 1,
    "activations.pass.lm_batch": 1,
    "activations.pass.shard_batches": 1,
    "model.step_unit": 1,
    "sae.latents": 1,
    "sae.k": 1,
    "sae.seed": 0,
    "sae.aux_k": 0,
    "sae.dead_after": 1,
    "optimizer.warmup": 1,
    "save_every": 1,
    "log_every": 1,
    "tokens": 1,
    "patterns.contexts": 1,
    "patterns.quantiles": 1,
    "monosemanticity.shuffles": 1,
    "alignment.permutations": 1,
    "lineage.tokens": 1,
    "resamples": 2,
    "seed": 0,
    "report.examples.features": 1,
    "report.examples.contexts": 1,
    "report.examples.window": 0,
    "report.panels": 1,
    "translation.tasks.shots": 0,
    "translation.metrics.chrf.word_order": 0,
    "translation.metrics.comet.batch": 1,
    "translation.metrics.comet.gpus": 0,
    "control.random": 0,
    "perplexity.context": 2,
    "perplexity.stride": 1,
    "continue.max_new_tokens": 1,
    "batch": 1,
}
ABOVE_ZERO = ("sae.lr", "sae.bandwidth", "activations.disk_gib", "alignment.level", "lineage.least")
NOT_NEGATIVE = (
    "sae.l1",
    "sae.l0",
    "sae.initial_threshold",
    "sae.aux_coefficient",
    "alignment.least",
    "contextual.token",
    "contextual.context",
    "threshold",
    "monosemanticity.quantile",
)
YES_OR_NO = (
    "force",
    "keep_save",
    "activations.evict",
    "activations.verify",
    "sae.encoder_bias",
    "model.trust_remote_code",
    "corpus.skip_bad",
    "logger.upload",
    "trainer.enable_progress_bar",
    "optimizer.partial._partial_",
    "control.shuffled",
    "control.self",
)
TEXT = (
    "cache",
    "activations.folder",
    "data.split",
    "data.validation_split",
    "sae.name",
    "model.name",
    "model.unpack_to",
    "logger.folder",
    "corpus.field",
    "split",
    "perplexity.split",
    "translation.tasks.pairs",
    "translation.tasks.shot_pairs",
    "activations.pass.lm_dtype",
    "activations.pass.device",
    "language",
    "bilingual",
    "mode",
    "norm",
    "dtype",
    "device",
)
WHOLE_OR_NULL = {"translation.tasks.examples": 1, "recovered": 1}
CHOICES = {"data.short_split": ("refuse", "take"), "short_split": ("refuse", "take")}
TEXT_OR_NULL = ("model.hook", "model.tokenizer", "alignment.pairs", "donor.model", "donor.sae")


def check_values(settings: Mapping[str, Any]) -> None:
    """Check every key named above that `settings` has; keys of `sae` may hold lists of values."""
    for key, least in (WHOLE | WHOLE_OR_NULL).items():
        for value in _values(settings, key):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
                raise ConfigError(key, value, f"must be a whole number, at least {least}")
    for key in (*ABOVE_ZERO, *NOT_NEGATIVE):
        for value in _values(settings, key):
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value < 0 or (value == 0 and key in ABOVE_ZERO):
                raise ConfigError(key, value, f"must be a number {'above 0' if key in ABOVE_ZERO else 'not below 0'}")
    for key in YES_OR_NO:
        for value in _values(settings, key):
            if not isinstance(value, bool):
                raise ConfigError(key, value, "must be true or false")
    for key, choices in CHOICES.items():
        for value in _values(settings, key):
            if value not in choices:
                raise ConfigError(key, value, f"choose {' or '.join(choices)}")
    for key in (*TEXT, *TEXT_OR_NULL):
        for value in _values(settings, key):
            if not isinstance(value, str) or not value or (key.endswith(".name") and ("/" in value or value[0] == ".")):
                raise ConfigError(key, value, "must be a word" if key.endswith(".name") else "must be text")


def _values(settings: Mapping[str, Any], key: str) -> list[Any]:
    """What `settings` holds at a dotted key: nothing, one value, or the values of a list of members."""
    found: Any = settings
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return []
        found = found[part]
    if found is None and (key in TEXT_OR_NULL or key in WHOLE_OR_NULL):
        return []
    return found if isinstance(found, list) and key.startswith("sae.") and key != "sae.name" else [found]
