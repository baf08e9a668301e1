"""What analysing a cell costs against encoding its text alone: python benchmarks/analysis.py [--json FILE]; see --help.

Random activations and tokens. `encoding`: pre-activations and TopK of all tokens, nothing kept. `codes`: the pass that
also keeps maxima and firings by latent. `features`: every question asked of them, alignment and lineage apart. With
--random-codes nothing is encoded and the firings are drawn, so that memory can be measured at any number of tokens.
"""

import argparse
import cProfile
import json
import pstats
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import BFloat16, Int64, UInt8
from torch import Tensor

from bisae.analysis.feature_table import CodedCell, Text, describe
from bisae.analysis.rules import AlignmentRule, ContextualRule, CrossRule, MonosemanticityRule, RetrievalRule, Rules
from bisae.analysis.summary import summarize
from bisae.features.analysed_activations import WINDOW, AnalysedActivations
from bisae.features.codes import CodesFolder, Encoded, Firings, encode
from bisae.features.contexts import Paper
from bisae.features.measures.clusters import GlobalClusters
from bisae.features.spaces.shipped import ShippedSpace
from bisae.features.tokens import Tokens
from bisae.sae import TopK

VOCABULARY = 99_584
STAGES = {  # of `features`: file and function
    ("codes.py", "block"): "reading codes",
    ("firing_columns.py", "firing_columns"): "rates by language",
    ("contextual.py", "explained"): "contextual",
    ("resampled.py", "choose"): "choosing contexts, also in resamples",
    ("read_contexts.py", "read_contexts"): "reading contexts",
    ("feature_table.py", "of"): "meanings in resamples",
    ("monosemanticity.py", "scores"): "null of monosemanticity",
    ("cross.py", "cross"): "null of bilingual",
}


class RandomActivations:
    """Rows drawn anew whenever they are read."""

    name = "random"
    in_ram = False

    def __init__(self, tokens: int, d_model: int) -> None:
        self.tokens, self.d_model = tokens, d_model

    def window(self, start: int, stop: int, wanted: Callable[[], object], following: object) -> "RandomActivations":
        return self

    def gather_ascending(
        self, layer: int, rows: Int64[np.ndarray, " token"], out: BFloat16[Tensor, "token d_model"]
    ) -> None:
        out.normal_(generator=torch.Generator().manual_seed(int(rows[0])))

    def languages(self, rows: Int64[np.ndarray, " token"]) -> UInt8[np.ndarray, " token"]:
        return np.zeros(len(rows), np.uint8)

    def shards_of(self, rows: Int64[np.ndarray, " token"]) -> list[int]:
        return [0]

    def done(self, rows: object, passed: int) -> None: ...

    def close(self, finished: bool) -> None: ...


def random_found(start: int, tokens: int, latents: int, k: int) -> Encoded:
    """Firings of latents of very different frequency."""
    random = np.random.default_rng(start)
    latent = (latents * random.random((tokens, k)) ** 3).astype(np.int32)
    row = np.repeat(np.arange(start, start + tokens), k)
    key = np.unique(latent.ravel().astype(np.int64) * 2**40 + row)  # a latent fires once on a token
    latent, row = key >> 40, key & (2**40 - 1)
    values = random.random(len(row)).astype(np.float32) + 1e-6
    maximum = np.ones(latents, np.float32)
    return Encoded(Firings(0, np.searchsorted(latent, np.arange(latents + 1)), row, values), maximum)


def measure(
    tokens: int, d_model: int, latents: int, k: int, length: int, random_codes: bool, threads: int
) -> dict[str, float]:
    """Seconds of each part, and the peak memory of this process in GiB."""
    random = np.random.default_rng(0)
    sequence = np.arange(tokens) // length
    text = Tokens(
        (VOCABULARY * random.random(tokens) ** 4).astype(np.int32),
        (sequence % 2).astype(np.uint8),
        sequence.astype(np.int32),
        (np.arange(tokens) % length).astype(np.int16),
    )
    sae = TopK(d_model, latents, k)
    reading = AnalysedActivations(NoSource(), text, [1], RandomActivations(tokens, d_model))  # type: ignore[arg-type]
    found: dict[str, float] = {}
    # On one thread the process' own time: other processes do not count.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def timed(name: str, work: Callable[[], object]) -> None:
        started = clock()
        work()
        found[name] = clock() - started

    def windows(work: Callable[[int, Tensor], object]) -> None:
        for rows, values in reading.rows(np.arange(tokens), [1]):
            work(int(rows[0]), values[1])

    @torch.no_grad()
    def bare(_: int, values: Tensor) -> None:
        for rows in values.split(max(1, 2**25 // latents)):
            sae.encode(rows)

    with tempfile.TemporaryDirectory() as folder:
        codes = CodesFolder(Path(folder), latents)
        if random_codes:
            for start in range(0, tokens, WINDOW):
                codes.write(start, random_found(start, min(WINDOW, tokens - start), latents, k))
        else:
            timed("encoding", lambda: windows(bare))
            timed("codes", lambda: windows(lambda start, values: codes.write(start, encode(sae, start, values))))
        codes.finish([start for start, _ in reading.windows])
        rules = Rules(
            patterns=Paper(50, 0.7),
            language="document",
            threshold=0.9,
            space=ShippedSpace("average", 0.62),
            monosemanticity=MonosemanticityRule(100, 0.99),
            bilingual="cross",
            cross=CrossRule(0.1, 0.05),
            alignment=AlignmentRule(None, 1, 0.2, 0.05),
            retrieval=RetrievalRule(None, "cells"),
            contextual=ContextualRule(0.5, 0.1),
            recovered=None,
            resamples=200,
            seed=0,
        )
        clusters = GlobalClusters(random.integers(VOCABULARY // 3, size=VOCABULARY))
        words = random.integers(2, size=VOCABULARY).astype(np.int8)
        about = Text(("en", "ja"), text.language, clusters, words, None)
        cell = CodedCell(1, sae, codes, None)
        profile = cProfile.Profile(time.process_time, builtins=False)

        def features() -> object:
            return summarize(next(describe(reading, [cell], about, rules)), ("en", "ja"), rules)

        timed("features", lambda: profile.runcall(features))
        for (file, _, function), (*_, seconds, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
            if (stage := STAGES.get((Path(file).name, function))) is not None:
                found[stage] = found.get(stage, 0.0) + seconds
        found["nulls"] = found["null of monosemanticity"] + found["null of bilingual"]
        found["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if threads > 1:
            found |= by_turns(features, threads)
    if not random_codes:
        found["codes_of_encoding"] = found["codes"] / found["encoding"]
    return found


def by_turns(work: Callable[[], object], threads: int) -> dict[str, float]:
    """One and several threads twice each: the quicker of both times, and how many cores the several kept busy."""
    seconds, busy, results = {1: np.inf, threads: np.inf}, 0.0, []
    for number in (1, threads, threads, 1):
        torch.set_num_threads(number)
        clock, own = time.perf_counter(), time.process_time()
        results.append(work())
        took = time.perf_counter() - clock
        if took < seconds[number]:
            seconds[number] = took
            busy = (time.process_time() - own) / took if number > 1 else busy
    assert all(result == results[0] for result in results)
    torch.set_num_threads(1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    names = {"on_one_thread": seconds[1], "on_threads": seconds[threads], "speedup": seconds[1] / seconds[threads]}
    return names | {"busy_cores": busy, "peak_gib_threads": peak}


class NoSource:
    """Stands where an LM would; nothing is asked of it."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--d-model", type=int, default=512)
    parser.add_argument("--latents", type=int, default=32_768)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--length", type=int, default=64, help="tokens of a sequence")
    parser.add_argument("--random-codes", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="also time the features on so many, by turns with one")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    result = measure(
        given.tokens, given.d_model, given.latents, given.k, given.length, given.random_codes, given.threads
    )
    row = {
        "tokens": given.tokens,
        "d_model": given.d_model,
        "latents": given.latents,
        "k": given.k,
        "length": given.length,
        **result,
    }
    row |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
    for name, value in row.items():
        print(f"{name:36} {value:,.4g}" if isinstance(value, float) else f"{name:36} {value}")  # noqa: T201
    if given.json:
        given.json.write_text(json.dumps(row, indent=2) + "\n")
