"""The peers at the study's width: themselves where they are installed, else the structure of their step, rebuilt.

Each has the precision in which it is used on a GPU: all but the study's structure under bf16 autocast.
"""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import steps as known
import torch
from steps import ADAM, Step
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, linear
from work import K, Shape, work

from on_device.about import DEVICE
from on_device.steps_stage import timed
from on_device.timing import Budget

SHAPES = (Shape(2048, 32768, 32768), Shape(2048, 32768, 8192), Shape(512, 32768, 32768))


class SparseEncoder(torch.autograd.Function):
    """sparsify's encoder: its backward makes a tensor "entry d_model" and adds its rows up by index."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
        values, indices = linear(x, weight, bias).relu().topk(k, sorted=False)
        ctx.save_for_backward(x, weight, indices)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight, indices = ctx.saved_tensors
        of_values = gradients[0]
        of_weight, of_bias = torch.zeros_like(weight), weight.new_zeros(len(weight))
        rows = (of_values.unsqueeze(2) * x.unsqueeze(1)).reshape(-1, x.shape[1])
        of_weight.index_add_(0, indices.flatten(), rows.type_as(weight))
        of_bias.index_add_(0, indices.flatten(), of_values.flatten().type_as(weight))
        of_x = embedding_bag(indices, weight, mode="sum", per_sample_weights=of_values.type_as(weight))
        return of_x, of_weight, of_bias, None


def sparsify(directions: Tensor) -> Step:
    """The structure of eai-sparsify, without its Triton decoder."""
    W_enc, W_dec = (nn.Parameter(directions.clone()) for _ in range(2))
    b_enc, b_dec = (nn.Parameter(directions.new_zeros(size)) for size in directions.shape)
    adam = torch.optim.Adam([W_enc, W_dec, b_enc, b_dec], **ADAM)

    def step(x: Tensor) -> Tensor:
        values, indices = SparseEncoder.apply(x - b_dec, W_enc, b_enc, K)
        x_hat = embedding_bag(indices, W_dec, mode="sum", per_sample_weights=values.type_as(W_dec)) + b_dec
        loss = (x_hat - x).square().sum() / (x - x.mean(0)).square().sum()
        adam.zero_grad()
        loss.backward()
        with torch.no_grad():  # the gradient's part along the decoder's rows, then unit rows
            assert W_dec.grad is not None
            W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
            adam.step()
            W_dec.div_(W_dec.norm(dim=1, keepdim=True) + torch.finfo(torch.float32).eps)
        return loss.detach()

    return step


def sae_lens(directions: Tensor) -> Step:
    """The structure of SAELens with its defaults: dense, rescaled by decoder norms, clipped."""
    W_enc, W_dec = nn.Parameter(directions.T.contiguous()), nn.Parameter(directions.clone())
    b_enc, b_dec = (nn.Parameter(directions.new_zeros(size)) for size in directions.shape)
    parameters = [W_enc, W_dec, b_enc, b_dec]
    adam = torch.optim.Adam(parameters, **ADAM)

    def step(x: Tensor) -> Tensor:
        norms = W_dec.norm(dim=-1)
        hidden = ((x - b_dec) @ W_enc + b_enc) * norms
        values, indices = hidden.topk(K, sorted=False)
        codes = torch.zeros_like(hidden).scatter(-1, indices, values.relu())
        loss = ((codes / norms) @ W_dec + b_dec - x).square().sum(-1).mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        return loss.detach()

    return step


class Peer(NamedTuple):
    """A peer by its package, and its structure. Without a package the structure is the peer itself."""

    name: str
    package: str
    itself: Callable[[Tensor], Step]
    rebuilt: Callable[[Tensor], Step]
    bf16: bool = True

    def steps(self, itself: bool) -> Callable[[Tensor], Step]:
        """Makes its step, in its precision."""

        def make(directions: Tensor) -> Step:
            step = (self.itself if itself else self.rebuilt)(directions)

            def low(x: Tensor) -> Tensor:
                with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.bf16):
                    return step(x)

            return low

        return make


PEERS = (
    Peer("sparsify", "sparsify", known.sparsify, sparsify),
    Peer("sae_lens", "sae_lens", known.sae_lens, sae_lens),
    Peer("dense", "", known.dense, known.dense),
    Peer("study", "", known.study, known.study, bf16=False),
)


def peers(budget: Budget) -> Iterator[dict[str, Any]]:
    """A row a shape and peer."""
    for shape in [Shape(64, 1024, 256)] if budget.smoke else SHAPES:
        if not budget.allows(4):
            return
        directions, batches = work(shape, 0, DEVICE.type)
        for peer in PEERS:
            installed = bool(peer.package) and importlib.util.find_spec(peer.package) is not None and not budget.smoke
            for itself in (True, False) if installed else (False,):
                if not budget.allows(3):
                    return
                about = {**shape._asdict(), "k": K, "peer": peer.name, "rebuilt": bool(peer.package) and not itself}
                about["precision"] = "bf16-mixed" if peer.bf16 else "32-true"
                try:
                    yield {**about, **timed(peer.steps(itself), directions, batches)}
                except (RuntimeError, ImportError) as error:  # out of memory, or a version that does not work here
                    yield {**about, "error": f"{type(error).__name__}: {error}"}
