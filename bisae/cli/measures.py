"""What `intervene` measures: objects made from its settings."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bisae.config.instantiate import instantiate
from bisae.config.intervene import InterveneSettings
from bisae.config.keys import refused_by_key
from bisae.runtime.console import counted
from bisae.runtime.errors import ConfigError
from bisae.runtime.values import listed

if TYPE_CHECKING:
    from bisae.intervention.donor import DonorCells
    from bisae.intervention.measures import ContinuedPrompts, Measure, PerplexityText, TranslatedTasks
    from bisae.intervention.swap import SwappedWords
    from bisae.lm.model import Checkpoint
    from bisae.translation.scores import Scorer

log = logging.getLogger("bisae.intervention")


class Measures(NamedTuple):
    """Everything that is measured under each intervention."""

    text: "PerplexityText | None"
    tasks: "TranslatedTasks | None"
    scorer: "Scorer | None"
    continued: "ContinuedPrompts | None"
    swapped: "SwappedWords | None" = None

    @property
    def all(self) -> "list[Measure]":
        if self.swapped:
            return [self.swapped]
        assert self.text and self.continued
        return [self.text, *([self.tasks] if self.tasks else []), *([self.continued] if self.continued.prompts else [])]


def measures_of(settings: InterveneSettings, donor: "DonorCells", recipients: "Sequence[Checkpoint]") -> Measures:
    """Perplexity, translations and continued prompts; refused here where the LM cannot read them."""
    from bisae.intervention.measures import ContinuedPrompts, PerplexityText, TranslatedTasks
    from bisae.lm.changed_ids import changed_ids
    from bisae.lm.generation import generation_identity
    from bisae.translation.prompts import task_ids
    from bisae.translation.scores import Scorer

    corpus, tokenizer, positions = donor.recipe.corpus, donor.tokenizer, donor.checkpoint.positions
    generation = generation_identity([lm.folder for lm in recipients], tokenizer)
    with refused_by_key(settings, "perplexity"):
        read = {**settings.perplexity.model_dump(), "mix": language_shares(settings.perplexity.mix)}
        ids = changed_ids(donor.checkpoint, corpus, read["split"], Path(settings.cache) / "tokenizers")
        text = PerplexityText(corpus, tokenizer, settings.batch, **read, ids=ids)
        text.check(positions)
    tasks = scorer = None
    if settings.translation:
        with refused_by_key(settings, "translation"), refused_by_key(settings, "translation.tasks"):
            prompt = instantiate(settings.translation.prompt, "translation.prompt")
            chosen = instantiate(settings.translation.tasks, "translation.tasks").read()
            of_tasks = [task_ids(task, prompt, tokenizer, positions) for task in chosen]
            tasks = TranslatedTasks(of_tasks, settings.batch, generation, settings.translation.answers)
            nodes = settings.translation.metrics.items() if tasks.answers else ()
            metrics = {name: instantiate(node, f"translation.metrics.{name}") for name, node in nodes}
            scorer = Scorer(metrics, settings.resamples, settings.seed, Path(settings.output))
            scorer.check(chosen)
    prompts = listed(settings.continued.prompts)
    spelled = tokenizer.spells_special(prompts)
    longest = settings.continued.max_new_tokens
    continued = ContinuedPrompts(prompts, longest, settings.batch, generation, spelled)
    with refused_by_key(settings, "continue"):
        continued.check(tokenizer, positions)
    return Measures(text, tasks, scorer, continued)


def swap_of(settings: InterveneSettings, donor: "DonorCells", _: "Sequence[Checkpoint]") -> Measures:
    """The words that are swapped, in the prompts of the translation tasks."""
    from bisae.intervention.swap import SwappedWords
    from bisae.translation.prompts import task_ids
    from bisae.translation.word_swaps import swap_prompts
    from bisae.translation.words import Vocabulary, WordSource

    tokenizer, lm, asked = donor.tokenizer, donor.checkpoint, settings.swap
    if not settings.translation:
        raise ConfigError("translation", "none", "mode=swap reads words in its prompts: choose embedded or jsonl")
    with refused_by_key(settings, "swap"):
        source = WordSource(asked.words, asked.pairs, asked.together, asked.dice)
        words, vocabulary = source.read(tokenizer, lm.tokenizer, Path(settings.cache)), Vocabulary(tokenizer)
    with refused_by_key(settings, "translation"), refused_by_key(settings, "translation.tasks"):
        prompt = instantiate(settings.translation.prompt, "translation.prompt")
        tasks = instantiate(settings.translation.tasks, "translation.tasks").read()
        of_tasks = [task_ids(task, prompt, tokenizer, lm.positions) for task in tasks]
    ways: dict[tuple[str, str], list[Any]] = {}
    for ids in of_tasks:
        ways.setdefault((ids.task.source_language, ids.task.target_language), []).append(ids)
    limits = asked.most, asked.sentences, asked.apart
    with refused_by_key(settings, "swap"):
        prompts = {
            "_".join(way): swap_prompts(tasks, words.get(way, []), vocabulary, *limits) for way, tasks in ways.items()
        }
    for way, of_way in zip(ways, prompts.values(), strict=True):
        if unused := source.unused(way[0], {one.word.text for one in of_way}):
            few = ", ".join(unused[:10]) + ", ..." * (len(unused) > 10)
            log.warning("swap.words: %s from %s to %s get no prompt: %s", counted(len(unused), "word"), *way, few)
    swapped = SwappedWords(prompts, settings.batch)
    with refused_by_key(settings, "translation"):
        swapped.check(lm.positions)
    return Measures(None, None, None, None, swapped)


def language_shares(mix: Mapping[str, float] | None) -> dict[str, float] | None:
    """`perplexity.mix` with each language by its one code."""
    from bisae.corpus.languages import codes_of

    if not mix:
        return None
    try:
        return dict(zip(codes_of(mix), map(float, mix.values()), strict=True))
    except ValueError as error:
        raise ConfigError("perplexity.mix", dict(mix), str(error)) from error
