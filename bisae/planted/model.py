"""The LM of a planted world (config group `model`): its activations are sums of known directions."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bisae.lm.model import FINAL, Checkpoint, read_at
from bisae.planted.lexicon import MARK, SHARED_TOKENS, UNKNOWN, Lexicon
from bisae.planted.truth import CODES, CONTEXTUAL, NEVER, TRUTH, Truth
from bisae.planted.world import UNRELATED, Draw, directions
from bisae.runtime.atomic import atomic_folder
from bisae.runtime.errors import Refused
from bisae.runtime.naming import name_of
from bisae.runtime.ranges import Count, Index, Name, NotNegative, Positive, Share, Text

NOT_OF_WORLD = ("name", "unpack_to", "hook")
VERSION = 1  # raise it when the same settings make other activations


@dataclass(frozen=True)
class PlantedCheckpoint(Checkpoint):
    """A step of a planted LM. Its folder holds the truth of all steps, and the tokenizer."""

    predicts = False

    @property
    def embeddings(self) -> int:
        return len(self.truth.token_language)

    @cached_property
    def truth(self) -> Truth:
        """All features of the LM."""
        return Truth.load(self.folder / TRUTH)

    def reader(self, layers: Sequence[int], dtype: torch.dtype, device: torch.device) -> "PlantedReader":
        return PlantedReader(self.truth, self.step, layers, dtype, self.hook == CODES)


@dataclass(frozen=True, eq=False)
class PlantedReader:
    """Reads activations as `bisae.lm.residual.ResidualReader` does, on the CPU."""

    truth: Truth
    step: int
    layers: Sequence[int]
    dtype: torch.dtype
    codes: bool  # in place of activations

    def read(self, ids: Int[Tensor, "sequence position"]) -> dict[int, Float[Tensor, "sequence position d_model"]]:
        """Return the activations at each layer; those of padding are without meaning."""
        tokens, position = ids.cpu().numpy().ravel(), np.tile(np.arange(ids.shape[1]), len(ids))
        streams = {layer: self._rows(tokens, position, layer) for layer in self.layers}
        return {layer: torch.from_numpy(rows).to(self.dtype).view(*ids.shape, -1) for layer, rows in streams.items()}

    def _rows(self, tokens: np.ndarray, position: np.ndarray, layer: int) -> np.ndarray:
        if self.codes:
            return self.truth.codes(tokens, position, self.step, layer).toarray()
        return self.truth.stream(tokens, position, self.step, layer)


@dataclass(frozen=True)
class PlantedModel:
    """An LM without weights: conf/model/planted.yaml says what each setting is."""

    name: Name
    unpack_to: Text
    lexicon: Mapping[str, Any] | None
    steps: Sequence[Index]
    layers: Count
    d_model: Count
    words: Index
    grammar: Index
    meanings: Index
    mixed: Index
    contextual: Index
    single: Index
    nested: Index
    correlated: Index
    shares: Sequence[Share] | None
    presence: Share
    second: Sequence[Share]
    strength: Sequence[Positive]
    spread: Share
    noise: NotNegative
    correlation: Share
    deaths: Share
    seed: Index
    hook: Text | None = None

    def __post_init__(self) -> None:
        """Raises Refused for settings from which no world can be made."""
        lexicon, languages = self._words, len(self._words.languages)
        if self.hook not in (None, CODES):
            raise Refused("hook", self.hook, f"must be null or {CODES}: a planted LM has no parts")
        if not self.steps or list(self.steps) != sorted(set(self.steps)) or max(self.steps) >= NEVER:
            raise Refused("steps", list(self.steps), "must be ascending numbers of steps")
        for key in ("second", "strength"):
            low_high = getattr(self, key)
            if len(low_high) != 2 or low_high[0] > low_high[1]:
                raise Refused(key, list(low_high), "must be two numbers, the smaller one first")
        if self.shares is not None and (len(self.shares) != languages or not math.isclose(sum(self.shares), 1)):
            remedy = f"must be {languages} numbers that are 1 together, one for each of {', '.join(lexicon.languages)}"
            raise Refused("shares", list(self.shares), remedy)
        free = lexicon.meanings - self.meanings
        for key, most, of in (
            ("meanings", lexicon.meanings, "there are so many meanings"),
            ("words", languages * free, "so many words have meanings that no bilingual feature has"),
            ("nested", self.meanings, "each is in a bilingual feature of its own"),
            ("correlated", self.words, "each has a feature of words of its own as partner"),
            ("mixed", math.inf if lexicon.meanings >= UNRELATED * languages else 0, "there are too few meanings"),
        ):
            if getattr(self, key) > most:
                raise Refused(key, getattr(self, key), f"must be at most {most}: {of}")

    @cached_property
    def _words(self) -> Lexicon:
        return Lexicon.of(self.lexicon)

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """All that changes an activation, as JSON values."""
        plain = {key: getattr(self, key) for key in self.__dataclass_fields__ if key not in NOT_OF_WORLD}
        lists = {key: list(value) for key, value in plain.items() if isinstance(value, list | tuple)}
        return {**plain, **lists, "lexicon": self._words.identity, "version": VERSION}

    @property
    def features(self) -> int:
        """Number of all features: those asked for, and one for each language and each shared token."""
        asked = self.words + self.grammar + self.meanings + self.mixed + self.contextual + self.single
        return asked + self.nested + self.correlated + len(self._words.languages) + len(SHARED_TOKENS)

    def checkpoint(self, step: object) -> PlantedCheckpoint:
        number = self.steps[-1] if step == FINAL else step
        if isinstance(number, bool) or number not in self.steps:
            raise Refused("checkpoint", step, f"{self.name} has the steps {list(self.steps)} and `final`")
        assert isinstance(number, int)
        folder = Path(self.unpack_to) / f"{self.name}-{name_of(self._settings)}"
        if not folder.exists():
            self._write(folder)
        return PlantedCheckpoint(
            model=read_at(self.name, self.hook),
            step=number,
            folder=folder,
            weights=f"planted-{name_of({**self._settings, 'step': number})}",
            tokenizer=f"planted-{name_of(self._words.identity)}",
            tokens_seen=None,
            layers=self.layers,
            d_model=self.features if self.hook else self.d_model,
            parameters=self.features * self.d_model,
            hook=self.hook,
        )

    def _write(self, folder: Path) -> None:
        try:
            with atomic_folder(folder) as temporary:
                self.truth().save(temporary / TRUTH)
                write_tokenizer(self._words, temporary)
        except OSError:
            if not folder.exists():  # another process was first: its folder is the same
                raise

    def truth(self) -> Truth:
        """Draw the world. RandomState's draws are the same in all versions of NumPy."""
        languages, lexicon = len(self._words.languages), self._words
        drawn = Draw(
            lexicon,
            len(self.steps),
            self.layers,
            float(self.presence),
            [float(one) for one in self.second],
            [float(one) for one in self.strength],
            [float(one) for one in self.shares or [1 / languages] * languages],
            np.random.RandomState([self.seed % 2**32, 1]),
        )
        drawn.background()
        drawn.of_meanings(self.words, self.meanings, self.nested, self.correlated)
        drawn.of_function_words(self.grammar, self.contextual)
        drawn.of_words(self.mixed, self.single)
        drawn.deaths(float(self.deaths))
        features = drawn.features
        steps = [*self.steps, NEVER]
        return Truth(
            directions=directions(len(features), self.d_model, np.random.RandomState([self.seed % 2**32, 2])),
            kind=np.array([one.kind for one in features], np.uint8),
            of_language=np.array([[number in one.languages for number in range(languages)] for one in features]),
            presence=np.array([one.presence for one in features]),
            tokens=np.concatenate([one.tokens for one in features]),
            offsets=np.cumsum([0, *(len(one.tokens) for one in features)]),
            lag=np.array([one.kind == CONTEXTUAL for one in features], np.uint8),
            parent=np.array([one.parent for one in features], np.int32),
            partner=np.array([one.partner for one in features], np.int32),
            strength=np.array([one.strength for one in features]),
            birth=np.array([steps[one.birth] for one in features], np.int32),
            death=np.array([steps[min(one.death, len(steps) - 1)] for one in features], np.int32),
            first_layer=np.array([one.first_layer for one in features], np.int32),
            last_layer=np.full(len(features), self.layers, np.int32),
            token_language=lexicon.token_language,
            token_meaning=lexicon.token_meaning,
            languages=lexicon.languages,
            steps=tuple(self.steps),
            layers=self.layers,
            noise=float(self.noise),
            spread=float(self.spread),
            correlation=float(self.correlation),
            seed=self.seed,
            world=self._settings,
        )


def write_tokenizer(lexicon: Lexicon, folder: Path) -> None:
    """Write the tokenizer of a lexicon as a Hugging Face folder: a token is what stands between spaces."""
    metaspace = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}
    words = [UNKNOWN, *(MARK + word for word in lexicon.words[1:])]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    described = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 0, "content": UNKNOWN, **special}],
        "normalizer": None,
        "pre_tokenizer": metaspace,
        "post_processor": None,
        "decoder": metaspace,
        "model": {"type": "WordLevel", "vocab": {word: n for n, word in enumerate(words)}, "unk_token": UNKNOWN},
    }
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": UNKNOWN}
    for name, content in (("tokenizer.json", described), ("tokenizer_config.json", names)):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
