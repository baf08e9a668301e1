"""Baselines (`sae.baseline`): SAEs of which one matrix stays at its random draw.

What a trained SAE shows counts for little where these show it too. `frozen_decoder` and `frozen_encoder` train all but
the rows of W_dec or W_enc; with `soft_frozen_decoder` the rows of W_dec move, but keep a cosine of `LEAST` to their
draw. Source: Korznikov et al. 2026, arXiv 2602.14111.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bisae.runtime.errors import Refused

if TYPE_CHECKING:  # slow to import, and a plan needs none
    from jaxtyping import Float
    from torch import Tensor

    from bisae.sae import SparseAutoencoder

TRAINED = "trained"  # what tables call an SAE that is no baseline
LEAST = 0.8  # cosine, as in the paper
SOFT = "soft_frozen_decoder"
DRAWN = {"frozen_decoder": "W_dec", SOFT: "W_dec", "frozen_encoder": "W_enc"}


def check_baseline(settings: Mapping[str, Any]) -> None:
    """Refuse (`baseline`) a member, by its settings of `sae`, that cannot be one."""
    baseline = settings.get("baseline")
    if baseline and settings.get("start"):
        remedy = f"stays at its random draw, which start={settings['start']} would replace: leave one out"
        raise Refused("baseline", baseline, remedy)
    if baseline == "frozen_encoder" and settings.get("encoder_bias") is False:
        raise Refused("baseline", baseline, "leaves nothing that makes codes sparse: set sae.encoder_bias=true too")


def freeze(sae: "SparseAutoencoder", baseline: str | None) -> None:
    """Exclude from training the matrix that stays at its draw."""
    if baseline and baseline != SOFT:
        getattr(sae, DRAWN[baseline]).requires_grad_(False)


@contextmanager
def keeping(sae: "SparseAutoencoder", baseline: str | None) -> Iterator[None]:
    """Undo what is done inside to the matrix that stays at its draw."""
    drawn = getattr(sae, DRAWN[baseline]).data if baseline else None
    before = None if drawn is None else drawn.clone()
    yield
    if drawn is not None and before is not None:
        drawn.copy_(before)


def hold_near(
    rows: "Float[Tensor, 'latent d_model']", draw: "Float[Tensor, 'latent d_model']", least: float = LEAST
) -> None:
    """Turn each unit row that is further from its unit draw back to a cosine of `least`, in their plane, in place."""
    import torch

    with torch.no_grad():
        cosine = (rows * draw).sum(1, keepdim=True)
        aside = torch.nn.functional.normalize(rows - cosine * draw, dim=1)
        nearest = torch.nn.functional.normalize(least * draw + (1 - least**2) ** 0.5 * aside, dim=1)
        rows.copy_(torch.where(cosine < least, nearest, rows))
