import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bisae.metrics import RECONSTRUCTION
from bisae.metrics.reconstruction import ReconstructionMetrics
from bisae.sae import TopK

LANGUAGES = ("en", "ja")


def sample(tokens: int, seed: int = 0) -> tuple[TopK, torch.Tensor, torch.Tensor]:
    """An SAE with random weights, LM activations with a strong mean and uneven norms, and their languages."""
    generator = torch.Generator().manual_seed(seed)
    sae = TopK(d_model=6, latents=20, k=3, seed=seed).double()
    with torch.no_grad():
        sae.b_pre.normal_(generator=generator).mul_(0.1)
    activations = torch.randn(tokens, 6, generator=generator, dtype=torch.float64) * torch.rand(
        tokens, 1, generator=generator, dtype=torch.float64
    ) + torch.arange(6)
    language = (torch.rand(tokens, generator=generator) < 0.3).to(torch.uint8)
    return sae, activations, language


def update(metrics: ReconstructionMetrics, sae: TopK, activations: torch.Tensor, language: torch.Tensor) -> None:
    with torch.no_grad():
        x, norm = sae.normalize(activations)
        codes = sae.encode_unit(x)
        metrics.update(x, norm, sae.decode(codes), codes, language)


def direct(sae: TopK, activations: torch.Tensor) -> dict[str, float]:
    """The definitions, written out on all tokens at once."""
    with torch.no_grad():
        x, norm = sae.normalize(activations)
        codes = sae.encode_unit(x)
        x_hat = sae.decode(codes)

    def unexplained(true: torch.Tensor, guess: torch.Tensor) -> float:
        return ((true - guess).square().sum() / (true - true.mean(0)).square().sum()).item()

    fvu = unexplained(x, x_hat)
    return {
        "fvu": fvu,
        "r2": 1 - fvu,
        "fvu_raw": unexplained(activations, x_hat * norm[:, None]),
        "l0": (codes.dense() > 0).sum(1).double().mean().item(),
        "cosine": torch.cosine_similarity(x, x_hat).mean().item(),
        "dead": ((codes.dense() > 0).sum(0) == 0).double().mean().item(),
        "gamma": (x.mean(0).norm() / (x - x.mean(0)).square().sum(1).mean().sqrt()).item(),
    }


def test_streamed_values_equal_the_definitions_overall_and_per_language() -> None:
    sae, activations, language = sample(500)
    metrics = ReconstructionMetrics(LANGUAGES, 6, 20)
    for part in torch.arange(500).split(77):
        update(metrics, sae, activations[part], language[part])
    found = metrics.compute()
    expected = direct(sae, activations)
    for index, name in enumerate(LANGUAGES):
        expected |= {f"{key}/{name}": value for key, value in direct(sae, activations[language == index]).items()}
    assert found == pytest.approx(expected, rel=1e-10)
    assert {name.partition("/")[0] for name in found} == set(RECONSTRUCTION)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 99))
def test_the_cut_into_batches_does_not_matter(cut: list[int], seed: int) -> None:
    sae, activations, language = sample(sum(cut), seed)
    whole, parts = (ReconstructionMetrics(LANGUAGES, 6, 20) for _ in range(2))
    update(whole, sae, activations, language)
    for part in torch.arange(sum(cut)).split(cut):
        update(parts, sae, activations[part], language[part])
    assert parts.compute() == pytest.approx(whole.compute(), rel=1e-8, nan_ok=True)


def test_a_language_without_tokens_has_no_row() -> None:
    sae, activations, _ = sample(30)
    metrics = ReconstructionMetrics(LANGUAGES, 6, 20)
    update(metrics, sae, activations, torch.zeros(30, dtype=torch.uint8))
    assert "fvu/en" in metrics.compute() and "fvu/ja" not in metrics.compute()


def test_fvu_is_one_for_predicting_the_mean_and_zero_for_the_input_itself() -> None:
    sae, activations, language = sample(200)
    x, norm = sae.normalize(activations)
    codes = sae.encode_unit(x.detach())
    for guess, expected in ((x.mean(0).expand_as(x), 1.0), (x, 0.0)):
        metrics = ReconstructionMetrics(LANGUAGES, 6, 20)
        metrics.update(x, norm, guess.contiguous(), codes, language)
        assert metrics.compute()["fvu"] == pytest.approx(expected, abs=1e-10)


def test_sums_survive_a_save() -> None:
    sae, activations, language = sample(100)
    metrics, restored = (ReconstructionMetrics(LANGUAGES, 6, 20) for _ in range(2))
    update(metrics, sae, activations, language)
    restored.load_state_dict(metrics.state_dict())
    update(metrics, sae, activations, language)
    update(restored, sae, activations, language)
    assert restored.compute() == metrics.compute()
