"""Analyse all cells of one LM checkpoint: one LM pass, then for each cell its codes and its features."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bisae.activations.store import Source
from bisae.analysis.analysed_text import AnalysedText
from bisae.analysis.feature_table import CodedCell, Text, describe
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
from bisae.sae import SparseAutoencoder

log = logging.getLogger(__name__)

CANDIDATES = 2**13  # bytes of the candidates for contexts of a latent, about
NEIGHBOURS = 8  # features with the nearest decoder directions, stored for each feature


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

    def together(self, cells: Sequence[FoundCell]) -> Iterator[list[FoundCell]]:
        """Cut cells in parts to analyse at once: all that fit in RAM where the LM reads the text anew for each part."""
        part: list[FoundCell] = []
        size = 0
        for cell in cells:
            weights, latents = cell.folder / "sae.safetensors", cell.identity.get("sae", {}).get("latents", 0)
            held = CANDIDATES * latents + (weights.stat().st_size if weights.exists() else 0)
            if part and (self.text.store.shared or size + held > self.text.room_for_saes):
                yield part
                part, size = [], 0
            part.append(cell)
            size += held
        yield from [part] if part else []

    def describe(self, cells: Sequence[FoundCell]) -> None:
        """Analyse cells, unless their analyses are finished already. The text is read once for all codes that are
        missing, and once for all contexts.

        Raises:
            Refused, ValueError, OSError: A cell, its LM or its text cannot be used; the message says why.
        """
        due = []
        for cell in cells:
            if not (analysis := self.analysis(cell)).finished:
                due.append(cell)
            elif not self.text.take_short and self._short(held := analysis.read()["tokens"]):
                remedy = f"{analysis.folder} holds all {held} tokens of the split; short_split=take accepts that"
                raise Refused("tokens", self.text.tokens, remedy)
        if not due:
            return
        _ = self._loss_recovered, self._clustering  # refused before any work
        with ExitStack() as locks:
            coded = []
            for cell in sorted(due, key=lambda cell: self.codes(cell).folder):  # so that no two wait for ever
                codes = self.codes(cell)
                locks.enter_context(sole_writer(codes.folder))
                if not self.analysis(cell).finished:  # by another process, while this one waited
                    coded.append((cell, self.text.sae(cell), codes))
            self._encode([one for one in coded if not one[-1].finished])
            if coded:
                self._describe(coded)

    def _describe(self, coded: Sequence[tuple[FoundCell, SparseAutoencoder, CodesFolder]]) -> None:
        languages, tokens, tokenizer = self.recipe.corpus.languages, self.tokens, self._lm_pass.tokenizer
        text = Text(languages, self._language, self._clustering, self._word_languages, self._script)
        lm = {key: getattr(self.recipe.checkpoint, key) for key in ("parameters", "d_model", "layers", "tokens_seen")}
        saes = [(cell.layer, sae) for cell, sae, _ in coded]
        pairs = self._pairs.of(saes) if self._pairs else [NO_PAIRS] * len(coded)
        cells = [
            CodedCell(cell.layer, sae, codes, of_cell.sides)
            for (cell, sae, codes), of_cell in zip(coded, pairs, strict=True)
        ]
        found = describe(self._reading, cells, text, self.rules)
        for described, (cell, sae, _), of_cell in zip(found, coded, pairs, strict=True):
            metrics = summarize(described, languages, self.rules) | of_cell.metrics(cell.layer)
            if (loss := self._loss_recovered) is not None:
                metrics |= loss.of(sae, cell.layer, self.rules.resamples, self.rules.seed)
            near = nearest(sae.W_dec.detach(), NEIGHBOURS)
            readable = self._texts, lambda ids: pieces(tokenizer, ids)
            self.analysis(cell).write(described, metrics, tokens, languages, *readable, lm, near, of_cell.retrieval)

    @contextmanager
    def encoded(self, cell: FoundCell, stop: int) -> Iterator[CodesFolder]:
        """The codes of a cell, at least those on rows below `stop`, which are computed if they are missing.

        They are locked inside the `with` block.
        """
        codes = self.codes(cell)
        with sole_writer(codes.folder):
            if not codes.finished:
                self._encode([(cell, self.text.sae(cell), codes)], stop)
            yield codes

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

    def _opened(self, source: Source, tokens: Tokens, layers: Sequence[int], title: str) -> AnalysedActivations:
        on_gpu = self.text.sae_device == "cuda"
        return AnalysedActivations.open(self.text.store, source, tokens, layers, title, on_gpu)

    @cached_property
    def _reading(self) -> AnalysedActivations:
        return self._opened(self._lm_pass, self.tokens, self.layers, "LM activations, analysis")

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
        reading = self._opened(source, tokens, read, "LM activations, sentence pairs")
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
