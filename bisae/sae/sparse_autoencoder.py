"""The base class of all SAEs: weights, unit-norm inputs, encoding, decoding, the training objective."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count, Index, NotNegative
from bisae.sae.encoder import Codes, Weights, encode, normalize_rows, pre_activations
from bisae.sae.kernels.dense import has_onednn
from bisae.sae.kernels.products import weighted_sums
from bisae.sae.objective import COEFFICIENT, Average, Objective, Take, alone, aux_k_loss, differentiable_loss


def refuse_negative(**values: float) -> None:
    """Refuse a setting that is negative, infinite or NaN, by its name."""
    for field, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise Refused(field, value, "must be finite and not negative")


@torch.no_grad()
def geometric_median(
    points: Float[Tensor, "token d_model"], iterations: int = 100, tolerance: float = 1e-5, offset: float = 1e-8
) -> Float[Tensor, " d_model"]:
    """The point with the least sum of distances to `points`, by Weiszfeld's iteration from the mean.

    The iteration stops when a step is shorter than `tolerance`. `offset` is added to each distance, so that none is
    0. The three constants are those of the llm-jp-sae code.
    """
    median = points.mean(0)
    for _ in range(iterations):
        weight = 1 / (torch.linalg.vector_norm(points - median, dim=1) + offset)
        previous, median = median, weight @ points / weight.sum()
        if torch.linalg.vector_norm(median - previous) < tolerance:
            break
    return median


class Reconstruction(NamedTuple):
    """LM activations, encoded and decoded by an SAE."""

    codes: Codes
    x_hat: Float[Tensor, "token d_model"]  # in the SAE's space, in which inputs have norm 1
    norm: Float[Tensor, " token"]  # L2 norm of the LM's activations

    @property
    def activation(self) -> Float[Tensor, "token d_model"]:
        """The reconstruction in the LM's space: `x_hat` times `norm`."""
        return self.x_hat * self.norm[:, None]


class TrainingLoss(NamedTuple):
    """The result of a forward pass in training. `loss` can be differentiated; `codes` and `x_hat` are detached."""

    loss: Float[Tensor, ""]
    codes: Codes
    x_hat: Float[Tensor, "token d_model"]


class SparseAutoencoder(nn.Module, ABC):
    """An SAE on LM activations that are first divided by their own L2 norm.

    Below, `activation` is what the LM computes, with any norm and float dtype, and `x` is the same with norm 1, in the
    SAE's dtype. Each architecture is a subclass that defines `architecture`, `arguments`, `select` and `_objective`;
    the hooks `on_start`, `extra_metrics`, `extra_state` and `load_extra_state` say what else is special about its
    training.

    Args:
        d_model: width of the LM.
        latents: number of latents.
        seed: of the initial weights.
        aux_k: number of dead latents in the auxiliary loss; 0: no such loss.
        aux_coefficient: weight of the auxiliary loss.

    Raises:
        Refused: a size or coefficient cannot work. Subclasses refuse their own settings in the same way.
    """

    architecture: ClassVar[str]  # the name in saved files

    def __init__(
        self,
        d_model: int,
        latents: Count,
        seed: Index = 0,
        aux_k: Index = 0,
        aux_coefficient: NotNegative = COEFFICIENT,
    ) -> None:
        super().__init__()
        if d_model < 1:
            raise Refused("d_model", d_model, "must be the width of the LM, at least 1")
        if latents < 1:
            raise Refused("latents", latents, "must be at least 1")
        if not 0 <= aux_k <= latents:
            raise Refused("aux_k", aux_k, f"must be between 0 (off) and latents={latents}")
        refuse_negative(aux_coefficient=aux_coefficient)
        self.d_model, self.latents, self.seed = d_model, latents, seed
        self.aux_k, self.aux_coefficient = aux_k, aux_coefficient

        # Decoder: default init of nn.Linear(latents, d_model), then unit norm. Encoder: its transpose. With a generator
        # of its own, on the CPU, a seed gives the same SAE on every device, whatever other code draws random numbers.
        bound = 1 / math.sqrt(latents)
        directions = torch.empty(latents, d_model, device="cpu")
        directions.uniform_(-bound, bound, generator=torch.Generator("cpu").manual_seed(seed))
        self.W_dec = nn.Parameter(directions)
        self.normalize_decoder()
        self.W_enc = nn.Parameter(self.W_dec.detach().clone())
        self.b_enc = nn.Parameter(torch.zeros(latents))
        self.b_pre = nn.Parameter(torch.zeros(d_model))

    @property
    @abstractmethod
    def arguments(self) -> Mapping[str, int | float | bool | str]:
        """The keyword arguments that construct an SAE like this one."""

    @abstractmethod
    def select(self, pre_activations: Float[Tensor, "token latent"]) -> Codes:
        """Choose the codes from pre-activations."""

    @abstractmethod
    def _objective(self, x: Float[Tensor, "token d_model"]) -> Objective:
        """The loss without the auxiliary loss, and its gradients."""

    @property
    def weights(self) -> Weights:
        """The parameters themselves, not copies."""
        return Weights(self.W_enc, self.b_enc, self.W_dec, self.b_pre)

    def normalize(
        self, activation: Float[Tensor, "token d_model"]
    ) -> tuple[Float[Tensor, "token d_model"], Float[Tensor, " token"]]:
        """Divide each row by its L2 norm.

        Returns:
            `(x, norm)`: the unit-norm rows in the SAE's dtype, and the norms. A row of zeros stays zeros.
        """
        activation = activation.to(self.W_enc.dtype)
        norm = torch.linalg.vector_norm(activation, dim=1)
        return activation / norm.clamp_min(torch.finfo(norm.dtype).tiny)[:, None], norm

    def pre_activations(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token latent"]:
        """W_enc (x - b_pre) + b_enc for all latents. The result is dense: keep batches small (see `DENSE`)."""
        return pre_activations(x - self.b_pre, self.W_enc, self.b_enc)

    def encode_unit(self, x: Float[Tensor, "token d_model"]) -> Codes:
        """Codes of unit-norm inputs. All pre-activations are in memory at once: keep batches small (see `DENSE`)."""
        if torch.is_grad_enabled():
            return self.select(self.pre_activations(x))
        return encode(x - self.b_pre, self.weights, self.select)

    def encode(self, activation: Float[Tensor, "token d_model"]) -> Codes:
        """Codes of LM activations."""
        return self.encode_unit(self.normalize(activation)[0])

    def decode(self, codes: Codes) -> Float[Tensor, "token d_model"]:
        """The reconstruction x_hat in the SAE's space: codes @ W_dec + b_pre."""
        return weighted_sums(self.W_dec, codes.indices, codes.offsets, codes.values) + self.b_pre

    def reconstruct(self, activation: Float[Tensor, "token d_model"]) -> Reconstruction:
        """Encode and decode LM activations."""
        x, norm = self.normalize(activation)
        codes = self.encode_unit(x)
        return Reconstruction(codes, self.decode(codes), norm)

    def objective(
        self,
        x: Float[Tensor, "token d_model"],
        dead: Bool[Tensor, " latent"] | None = None,
        average: Average = alone,
        take: Take | None = None,
    ) -> TrainingLoss:
        """The training loss of unit-norm inputs.

        Args:
            x: the batch; under DDP the part of it that this rank has.
            dead: true for latents that have not fired for long. With it and `aux_k` the auxiliary loss is added.
            average: the mean of a tensor over ranks. The mean of the ranks' losses is then the loss of the whole
                batch, and the same holds for gradients.
            take: receives the gradients of W_enc and W_dec in backward, in place of their `.grad`; the gradients of
                the auxiliary loss still go to `.grad`.
        """
        objective = self._objective(x)
        loss = differentiable_loss(objective, self.weights, take)
        if self.aux_k and dead is not None:
            arguments = objective.x_hat, self.weights, dead, self.aux_k, self.aux_coefficient, average
            loss = loss + aux_k_loss(x, *arguments)
        return TrainingLoss(loss, objective.codes, objective.x_hat)

    @torch.no_grad()
    def initialize_b_pre(self, x: Float[Tensor, "token d_model"]) -> None:
        """Set b_pre to the geometric median of the unit-norm inputs `x`; called once, before the first step."""
        self.b_pre.copy_(geometric_median(x))

    @property
    def has_own_normalize(self) -> bool:
        """Whether the class replaces `normalize`: others share the unit-norm inputs of their layer."""
        return type(self).normalize is not SparseAutoencoder.normalize

    def on_start(self, x: Float[Tensor, "token d_model"], average: Average = alone) -> None:  # noqa: B027
        """Hook before the first step, after `initialize_b_pre`; not called when a job goes on from a save.

        What it does to parameters and buffers is undone where training starts from a trained SAE.

        Args:
            x: this rank's part of the first batch, with unit norm.
            average: the mean over ranks; every rank calls it equally often.
        """

    def extra_metrics(self) -> dict[str, float]:
        """Hook: metrics of the steps since the last call, logged beside bisae's own as `train/<name>`."""
        return {}

    def extra_state(self) -> dict[str, Any]:
        """Hook: what a save must hold beside parameters and buffers to go on exactly; plain numbers and texts."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Hook: take over what `extra_state` gave."""

    def set_candidates(self, wanted: int | str) -> None:
        """Choose how many candidates of a token training computes in full: "auto", "none" or a number.

        Raises:
            Refused: `candidates`, a number that cannot be used; any, where a class has no candidates.
        """
        if isinstance(wanted, int):
            raise Refused("candidates", wanted, f"{type(self).__name__} has none; auto and none are for all SAEs")

    @property
    def computed(self) -> str:
        """Hook: how training computes the codes, for the cell's provenance."""
        library = "oneDNN" if self.W_enc.device.type == "cpu" and has_onednn() else "PyTorch"
        return f"one product of all latents, by {library}"

    def normalize_decoder(self) -> None:
        """Give every latent's direction norm 1; called after each optimizer step."""
        normalize_rows(self.W_dec)
