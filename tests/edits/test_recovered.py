import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div, log_softmax, softmax
from transformers import PreTrainedModel

from bisae.corpus.tokens import TokenizedDocument
from bisae.edits.recovered import Recovered, recovered
from bisae.lm.probe import decoder_blocks
from bisae.sae import SparseAutoencoder
from tests.pair_of_lms import BOS

LAYER = 2


def documents() -> list[TokenizedDocument]:
    random = np.random.default_rng(0)
    made = [random.integers(4, 5000, length).astype(np.int32) for length in (9, 9, 30, 5)]
    made[1][3] = 2  # EOS within the text
    return [
        TokenizedDocument(language, n, ids) for n, (language, ids) in enumerate(zip((0, 1, 0, 1), made, strict=True))
    ]


def found(lm: PreTrainedModel, sae: SparseAutoencoder, batch: int) -> Recovered:
    return recovered(lm, sae, LAYER, documents(), ("en", "ja"), BOS, [BOS, 2], context=12, batch=batch)


@torch.no_grad()
def as_saelens_does(lm: PreTrainedModel, sae: SparseAutoencoder, rows: list[list[int]]) -> dict[str, float]:
    """Its `get_downstream_reconstruction_metrics`, one sequence a batch, with a hook of its own."""
    values: dict[str, list[torch.Tensor]] = {}
    for row in rows:
        ids = torch.tensor([row])
        usual = (ids != BOS) & (ids != 2)

        def spliced(_: object, __: object, stream: torch.Tensor, usual: torch.Tensor = usual) -> torch.Tensor:
            made = sae.reconstruct(stream[0]).activation[None]
            return torch.where(usual[..., None], made, stream)

        logits = {"without_sae": lm(ids).logits}
        block = decoder_blocks(lm)[LAYER - 1]
        for name, hook in (("with_sae", spliced), ("with_ablation", lambda _, __, stream: torch.zeros_like(stream))):
            handle = block.register_forward_hook(hook)
            logits[name] = lm(ids).logits
            handle.remove()
        for name, one in logits.items():
            loss = -log_softmax(one, -1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
            values.setdefault(f"ce_loss_{name}", []).append(loss[usual[:, :-1]])
            divergence = kl_div(log_softmax(one, -1), softmax(logits["without_sae"], -1), reduction="none").sum(-1)
            values.setdefault(f"kl_div_{name}", []).append(divergence[usual])
    mean = {name: torch.cat(parts).mean().item() for name, parts in values.items()}
    del mean["kl_div_without_sae"]
    zero = mean["ce_loss_with_ablation"]
    mean["ce_loss_score"] = (zero - mean["ce_loss_with_sae"]) / (zero - mean["ce_loss_without_sae"])
    mean["kl_div_score"] = 1 - mean["kl_div_with_sae"] / mean["kl_div_with_ablation"]
    return mean


@pytest.mark.parametrize("batch", [1, 3])
def test_scores_are_those_of_saelens_over_all_and_per_language(
    batch: int, lm: PreTrainedModel, sae: SparseAutoencoder
) -> None:
    heads = [[BOS, *document.ids[:11].tolist()] for document in documents()]
    expected = as_saelens_does(lm, sae, heads)
    for number, language in enumerate(("en", "ja")):
        of_language = as_saelens_does(lm, sae, heads[number::2])
        expected |= {f"{name}/{language}": value for name, value in of_language.items()}
    scores = found(lm, sae, batch).scores(np.ones((1, 4)))
    assert {name: value.item() for name, value in scores.items()} == pytest.approx(expected, rel=1e-4)


def test_scores_of_resampled_documents_are_of_those_drawn(lm: PreTrainedModel, sae: SparseAutoencoder) -> None:
    sums = found(lm, sae, 4)
    drawn = sums.scores(np.array([[1, 0, 1, 0], [1, 1, 1, 1]]))
    assert drawn["kl_div_score"][0] == drawn["kl_div_score/en"][0] == drawn["kl_div_score/en"][1]
    assert np.isnan(drawn["kl_div_score/ja"][0]) and drawn["kl_div_score"][0] != drawn["kl_div_score"][1]
