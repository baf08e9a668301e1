"""What an LM gains from translations beside each other: python benchmarks/ladder_gates.py LM CONTROL [LM CONTROL ...].

LM and CONTROL: folders of one checkpoint each (pretrained/NAME/step0010240), or shipped ones (embedded_parallel:final).
Several pairs, of one recipe and several seeds: also the mean over them, with Student's interval over LM seeds, and
`one_more`: where one more seed would lie. An LM of another size outside of it differs by more than its seed.

    below     nats a token of plain text, LM less control, of the `validation` documents; interval: paired documents
    gain      nats a token of a translation by which its own source beats another one; 400 examples, two shots;
              interval: over examples
    retrieval of translations by layer (docs/metrics.md), of the pairs of `alignment` in pools of 1000, with and without
              the languages' means; `behind`: less than the best layer by; intervals: over pairs, paired
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import options, show, write

from bisae.corpus.embedded import EMBEDDED
from bisae.corpus.pairs import read_pairs
from bisae.features.measures.alignment import is_word
from bisae.features.measures.retrieval import pools, retrieve
from bisae.lm.batches import batches
from bisae.lm.causal_lm import load_causal_lm
from bisae.lm.losses import token_losses
from bisae.lm.model import Checkpoint, EmbeddedModel, HuggingFaceModel
from bisae.lm.residual import ResidualReader
from bisae.metrics.intervals import document_weights, further_interval, percentiles, t_interval
from bisae.pretrain.text import validation_documents
from bisae.translation.prompts import Prompt, task_ids
from bisae.translation.tasks import PairTasks

BATCH, CONTEXT, CANDIDATES, RESAMPLES = 64, 128, 1000, 2000
Sums = tuple[np.ndarray, np.ndarray]  # by document or example: nats, tokens


@dataclass(frozen=True)
class Measured:
    plain: dict[str, Sums]
    gains: dict[str, Sums]
    retrieval: dict[tuple[bool, int], np.ndarray]  # by centred and layer: each pair's hits, the mean of both directions


def checkpoint(asked: str, unpack_to: Path) -> Checkpoint:
    name, _, step = asked.partition(":")
    if step:
        return EmbeddedModel(name, str(unpack_to)).checkpoint(int(step) if step.isdecimal() else step)
    path = Path(name)
    model = HuggingFaceModel(
        name=path.parent.name,
        path=name,
        revision=None,
        step_unit=1,
        final_path=None,
        final_step=int(path.name.removeprefix("step")),
        tokens_per_step=None,
        layers=None,
        d_model=None,
        trust_remote_code=False,
    )
    return model.checkpoint("final")


def measured(of: Checkpoint, examples: int, pairs: int | None) -> Measured:
    tokenizer, cpu = of.load_tokenizer(), torch.device("cpu")
    lm = load_causal_lm(of, torch.float32, cpu)
    languages, held = read_pairs(EMBEDDED / "validation.tsv.xz")
    plain = {
        language: sums(token_losses(lm, rows, BATCH))
        for language, rows in validation_documents(languages, held, tokenizer, CONTEXT).items()
    }
    gains = {}
    for task in PairTasks("embedded", "shipped", "shipped", 2, examples, 64).read():
        ids = task_ids(task, Prompt("pairs", "\n"), tokenizer, of.positions)
        own, tokens = sums(token_losses(lm, ids.texts, BATCH, ids.starts))
        other, _ = sums(token_losses(lm, ids.others, BATCH, ids.other_starts))
        gains[f"{task.source_language}-{task.target_language}"] = (other - own, tokens)
    return Measured(plain, gains, retrieved(of, tokenizer, pairs))


def retrieved(of: Checkpoint, tokenizer: Any, pairs: int | None) -> dict[tuple[bool, int], np.ndarray]:
    _, rows = read_pairs(EMBEDDED / "alignment.tsv.xz")
    word = torch.from_numpy(is_word(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))))
    layers = range(of.layers + 1)
    reader = ResidualReader(of, layers, torch.float32, torch.device("cpu"))
    sides = []
    for language in range(2):
        texts = [row.texts[language] for row in rows[:pairs]]
        ids = [[tokenizer.bos_token_id, *row] for row in tokenizer(texts, add_special_tokens=False).input_ids]
        means = np.zeros((len(layers), len(ids), of.d_model))
        for numbers, batch, mask in batches(ids, BATCH, reader.device):
            weight = (word[batch] * mask).double()[..., None]
            for layer, stream in reader.read(batch).items():
                means[layer, numbers] = ((stream.double() * weight).sum(1) / weight.sum(1)).numpy()  # NaN: no word
        sides.append(means)
    spoken = np.flatnonzero(~np.isnan(sides[0][0] + sides[1][0]).any(1))
    dealt = pools(len(spoken), min(CANDIDATES, len(spoken)), seed=0)
    hits = {}
    for centred in (True, False):
        for layer in layers:
            found = retrieve(sides[0][layer, spoken], sides[1][layer, spoken], dealt, centred)
            hits[centred, layer] = (found.forward + found.backward) / 2
    return hits


def sums(losses: Sequence[np.ndarray]) -> Sums:
    return np.array([one.sum() for one in losses]), np.array([len(one) for one in losses])


def estimate(name: str, nats: np.ndarray, tokens: np.ndarray) -> dict[str, Any]:
    """The mean of `nats` a token with its interval over documents, examples or pairs."""
    weights = document_weights(len(nats), RESAMPLES, seed=0)
    with np.errstate(invalid="ignore"):  # a resample of few may hold none
        low, high = percentiles((weights @ nats) / (weights @ tokens))
    return {"what": name, "value": float(nats.sum() / tokens.sum()), "low": low, "high": high}


def rows(lm: Measured, control: Measured) -> list[dict[str, Any]]:
    found = []
    for language, (nats, tokens) in lm.plain.items():
        before, _ = control.plain[language]
        found.append(estimate(f"below {language}", nats - before, tokens))
        for name, own in (("LM", nats), ("control", before)):
            found[-1] |= {f"perplexity_{name}": float(np.exp(own.sum() / tokens.sum()))}
    found += [
        estimate(f"gain {which} {way}", *one)
        for which, of in (("LM", lm), ("control", control))
        for way, one in of.gains.items()
    ]
    for centred in (True, False):
        layers = [layer for which, layer in lm.retrieval if which == centred]
        best = max(layers, key=lambda layer: lm.retrieval[centred, layer].mean())
        for layer in layers:
            own, ones = lm.retrieval[centred, layer], np.ones(len(lm.retrieval[centred, layer]))
            behind = estimate("", lm.retrieval[centred, best] - own, ones)
            found.append(estimate(f"retrieval {'centred' if centred else 'plain'} {layer}", own, ones))
            found[-1] |= {"control": float(control.retrieval[centred, layer].mean())}
            found[-1] |= {f"behind_{end}": behind[end] for end in ("low", "high")}
    return found


def over_seeds(found: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The mean of each row over the pairs, its values, and where one more LM of the recipe would lie."""
    means = []
    for same in zip(*found, strict=True):
        values = np.array([row["value"] for row in same])
        about = {"what": f"{same[0]['what']}, {len(values)} LMs", "value": float(values.mean())}
        ends = t_interval(values)._asdict()
        further = {f"one_more_{end}": reach for end, reach in further_interval(values)._asdict().items()}
        means.append({**about, **ends, **further, "values": [round(one, 5) for one in values]})
    return means


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("lms", nargs="*", default=["embedded_parallel:final", "embedded_unpaired:final"])
    parser.add_argument("--unpack-to", type=Path, default=Path("cache/lm"))
    given = parser.parse_args()
    if len(given.lms) % 2:
        parser.error("give each LM's control after it")
    examples, pairs = (8, 40) if given.smoke else (400, None)
    found = []
    for lm, control in zip(given.lms[::2], given.lms[1::2], strict=True):
        of_pair = rows(*(measured(checkpoint(one, given.unpack_to), examples, pairs) for one in (lm, control)))
        found.append([{"lm": lm, "control_lm": control, **row} for row in of_pair])
    every = [row for of_pair in found for row in of_pair] + (over_seeds(found) if len(found) > 1 else [])
    for row in every:
        show(row)
    write(given.json, every)


if __name__ == "__main__":
    main()
