"""Analyse all cells of one LM checkpoint: one LM pass, then for each cell its codes and its features."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from bisae.activations.store import Store
from bisae.analysis.feature_table import Text, describe
from bisae.analysis.folder import Analysis
from bisae.analysis.rules import Rules, script_language
from bisae.analysis.sentence_pairs import NO_PAIRS, PairsRead
from bisae.analysis.summary import summarize
from bisae.cells.find import FoundCell
from bisae.cells.recipe import Recipe
from bisae.features.analysed_activations import AnalysedActivations
from bisae.features.codes import CodesFolder, encode
from bisae.features.measures.alignment import is_word
from bisae.features.measures.clusters import Clustering
from bisae.features.measures.cross import word_languages
from bisae.features.measures.language import in_scripts
from bisae.features.measures.lineage import nearest
from bisae.features.tokens import Tokens, pieces, token_texts
from bisae.runtime.errors import Refused
from bisae.runtime.lock import sole_writer
from bisae.runtime.naming import checksum, name_of
from bisae.runtime.progress import tokens_bar
from bisae.sae import SparseAutoencoder, load

log = logging.getLogger(__name__)

NEIGHBOURS = 8  # features with the nearest decoder directions, stored for each feature


@dataclass(frozen=True, eq=False)
class AnalysedText:
    """The text that is read, where activations and codes are stored, and the device on which SAEs run.

    `take_short`: accept a split that holds fewer than `tokens` tokens. `classes`: classes of SAEs that are accepted
    besides bisae's own.
    """

    split: str
    tokens: int
    store: Store
    codes: Path
    device: str
    take_short: bool = False
    classes: tuple[type[SparseAutoencoder], ...] = ()

    @property
    def sae_device(self) -> str:
        return "cuda" if self.device == "auto" and torch.cuda.is_available() else self.device.replace("auto", "cpu")

    @property
    def room_for_saes(self) -> int:
        """Bytes of weights of SAEs that are held at once: a quarter of what the device has."""
        if self.sae_device == "cuda":
            return torch.cuda.mem_get_info()[1] // 4
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4

    def sae(self, cell: FoundCell) -> SparseAutoencoder:
        """The SAE of a cell, on the device. Raises like `load`."""
        return load(cell.folder, self.sae_device, self.classes)


@dataclass(frozen=True, eq=False)
class CheckpointCells:
    """Cells of one LM checkpoint that read the same text. `layers`: the layers that the one LM pass reads."""

    recipe: Recipe
    text: AnalysedText
    rules: Rules
    layers: Sequence[int]
    _checksums: dict[Path, str] = field(default_factory=dict, init=False)

    def analysis(self, cell: FoundCell) -> Analysis:
        """The analysis of a cell by these rules, finished or not."""
        text = {**self.recipe.text(self.text.split), "tokens": self.text.tokens}
        return Analysis(cell, {"text": text, **self.rules.describe})

    def codes(self, cell: FoundCell) -> CodesFolder:
        """The folder of a cell's codes on this text, which may not be written yet."""
        file = cell.folder / "sae.safetensors"
        if file not in self._checksums:  # lineage asks again and again, and the file may be large
            self._checksums[file] = checksum([file])
        made_from = {"sae": self._checksums[file], "layer": cell.layer, "text": self.analysis(cell).settings["text"]}
        made_from |= cell.encodes_as
        return CodesFolder(self.text.codes / name_of(made_from), cell.identity["sae"]["latents"])

    def describe(self, cell: FoundCell) -> Analysis:
        """Analyse a cell, unless its analysis is finished already.

        Raises:
            Refused, ValueError, OSError: The cell, its LM or its text cannot be used; the message says why.
        """
        analysis = self.analysis(cell)
        if analysis.finished:
            if not self.text.take_short and self._short(held := analysis.read()["tokens"]):
                remedy = f"{analysis.folder} holds all {held} tokens of the split; short_split=take accepts that"
                raise Refused("tokens", self.text.tokens, remedy)
            return analysis
        loss, clustering = self._loss_recovered, self._clustering  # refused before any work
        sae, tokenizer = self.text.sae(cell), self._lm_pass.tokenizer
        languages, tokens = self.recipe.corpus.languages, self.tokens
        with self.encoded(cell, sae) as codes:
            if analysis.finished:  # by another process, while this one waited
                return analysis
            text = Text(languages, self._language, clustering, self._word_languages, self._script)
            on_pairs = self._pairs.of(cell.layer, sae) if self._pairs else NO_PAIRS
            described = describe(self._reading, cell.layer, sae, codes, text, self.rules, on_pairs.sides)
            metrics = summarize(described, languages, self.rules) | on_pairs.metrics(cell.layer)
            if loss is not None:
                metrics |= loss.of(sae, cell.layer, self.rules.resamples, self.rules.seed)
            lm = {
                key: getattr(self.recipe.checkpoint, key) for key in ("parameters", "d_model", "layers", "tokens_seen")
            }
            near = nearest(sae.W_dec.detach(), NEIGHBOURS)
            readable = self._texts, lambda ids: pieces(tokenizer, ids)
            analysis.write(described, metrics, tokens, languages, *readable, lm, near, on_pairs.retrieval)
        return analysis

    @contextmanager
    def encoded(
        self, cell: FoundCell, sae: SparseAutoencoder | None = None, stop: int | None = None
    ) -> Iterator[CodesFolder]:
        """The codes of a cell, at least those on rows below `stop` (None: all), which are computed if they are missing.

        They are locked inside the `with` block.
        """
        codes = self.codes(cell)
        with sole_writer(codes.folder):
            if not codes.finished:
                self._encode([(cell, sae or self.text.sae(cell), codes)], stop)
            yield codes

    def encode(self, cells: Sequence[FoundCell]) -> None:
        """Compute the codes of cells in one reading of the text. A cell that cannot be encoded is left out."""
        _ = self._loss_recovered, self._clustering  # refused before any work
        with ExitStack() as locks:
            due, size = [], 0
            for codes, cell in sorted(((self.codes(cell), cell) for cell in cells), key=lambda one: one[0].folder):
                locks.enter_context(sole_writer(codes.folder))  # in one order, so that no two processes wait for ever
                if not codes.finished:
                    with suppress(OSError, ValueError, SafetensorError):  # `describe` says what is wrong with it
                        due.append((cell, self.text.sae(cell), codes))
                        size += sum(weights.nbytes for weights in due[-1][1].parameters())
                if size > self.text.room_for_saes:
                    self._encode(due)
                    due, size = [], 0
            self._encode(due)

    def close(self) -> None:
        """Free the LM and the activations."""
        for name in ("_reading", "_pairs"):
            if name in self.__dict__ and self.__dict__[name] is not None:
                self.__dict__.pop(name).close()
        for name in ("_loss_recovered", "_clustering"):
            self.__dict__.pop(name, None)

    def _encode(self, due: Sequence[tuple[FoundCell, SparseAutoencoder, CodesFolder]], stop: int | None = None) -> None:
        if not due:
            return
        reading, done = self._reading, 0
        windows = [window for window in reading.windows if stop is None or window[0] < stop]
        missing = [
            np.arange(*window) for window in windows if not all(codes.path(window[0]).exists() for *_, codes in due)
        ]
        total, layers = sum(map(len, missing)), sorted({cell.layer for cell, *_ in due})
        with tokens_bar(f"codes, layer {', '.join(map(str, layers))}") as progress:
            for rows, values in reading.rows(np.concatenate(missing or [np.empty(0, np.int64)]), layers):
                for cell, sae, codes in due:
                    if not codes.path(start := int(rows[0])).exists():
                        codes.write(start, encode(sae, start, values[cell.layer]))
                done += len(rows)
                progress(done, total)
        for *_, codes in due:
            if windows == reading.windows:
                codes.finish([start for start, _ in windows])

    @cached_property
    def _lm_pass(self) -> Any:
        return self.recipe.lm_pass(self.text.split, self.text.device)

    @cached_property
    def tokens(self) -> Tokens:
        """The tokens of the analysed text."""
        tokens = Tokens.read(self._lm_pass, self.text.tokens, self.text.take_short)
        for remark in self._lm_pass.remarks():
            log.warning("%s", remark)
        if self._short(len(tokens)):
            log.warning("tokens=%d: the split has only %d: %s", self.text.tokens, len(tokens), self._lm_pass.ended())
        return tokens

    def _short(self, tokens: int) -> bool:
        """True if so few tokens are fewer than asked for by more than one sequence, which would have been cut."""
        return tokens <= self.text.tokens - self.recipe.reading["context"]

    @cached_property
    def _reading(self) -> AnalysedActivations:
        return AnalysedActivations.open(
            self.text.store, self._lm_pass, self.tokens, self.layers, "LM activations, analysis"
        )

    @cached_property
    def _pairs(self) -> PairsRead | None:
        sentences, checkpoint = self.rules.alignment.sentences(self.recipe.corpus), self.recipe.checkpoint
        if sentences is None:
            return None
        source = self.recipe.pair_pass(sentences, self.text.device)
        tokens, rule, retrieve = Tokens.read(source, None), self.rules.retrieval, self.layers
        if rule.layers == "all" and rule.candidates is not None:
            retrieve = range(1 if checkpoint.hook else 0, checkpoint.layers + 1)
        read = sorted({*self.layers, *retrieve})
        reading = AnalysedActivations.open(self.text.store, source, tokens, read, "LM activations, sentence pairs")
        return PairsRead(reading, sentences, self._words, rule, retrieve, self.rules.seed)

    @cached_property
    def _loss_recovered(self) -> Any:
        if self.rules.recovered is None:
            return None
        from bisae.analysis.loss_recovered import LossRecovered  # slow to import

        device, tokenizer = torch.device(self.text.sae_device), self._lm_pass.tokenizer
        return LossRecovered(self.recipe, self.text.split, self.rules.recovered, tokenizer, device)

    @cached_property
    def _clustering(self) -> Clustering:
        return self.rules.space.clustering(self._lm_pass.tokenizer, self.recipe.checkpoint.tokenizer)

    @cached_property
    def _texts(self) -> list[str]:
        return token_texts(self._lm_pass.tokenizer)

    @cached_property
    def _words(self) -> np.ndarray:
        return is_word(self._texts)

    @cached_property
    def _word_languages(self) -> np.ndarray:
        words = self._words & (len(self.recipe.corpus.languages) == 2)
        return word_languages(self.tokens.token_ids, self._language, words)

    @cached_property
    def _language(self) -> np.ndarray:
        return self.rules.language_of_rows(self.tokens, self._texts, self.recipe.corpus)

    @cached_property
    def _script(self) -> np.ndarray | None:
        languages = self.recipe.corpus.languages
        return script_language(self.tokens, self._texts, languages) if in_scripts(languages) else None
