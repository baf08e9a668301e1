"""What a training step of a TopK SAE must compute and move on a GPU, by arithmetic: nothing here is measured.

A stage takes as long as the slowest of its three works: operations of the encoder's product, bytes through the device's
memory, and bytes of rows gathered again and again, which come from its cache where that holds them.
"""

from typing import NamedTuple

FLOAT, HALF = 4, 2  # bytes of float32, and of bf16


class Stage(NamedTuple):
    """One stage of a step. `moved`: bytes through memory, each tensor once; `gathered`: bytes of gathered rows."""

    name: str
    flops: int
    moved: int
    gathered: int = 0


class Ceilings(NamedTuple):
    """A device's speeds: operations a second of a bf16 and a float32 product, bytes a second of memory and cache."""

    bf16: float
    float32: float
    memory: float
    cache: float

    def seconds(self, stage: Stage, bf16: bool = True) -> float:
        """The least time of a stage."""
        product = stage.flops / (self.bf16 if bf16 else self.float32)
        return max(product, stage.moved / self.memory, stage.gathered / self.cache)


def stages(tokens: int, latents: int, d_model: int, k: int, bf16: bool = True, kernels: bool = True) -> list[Stage]:
    """The stages of one step.

    Args:
        tokens: of the batch.
        latents: of the SAE.
        d_model: width of the LM.
        k: latents kept on a token.
        bf16: the encoder's product in bf16 (`trainer.precision=bf16-mixed`), else in float32.
        kernels: with the kernels of `bisae.sae.kernels`; else with PyTorch's operators, whose selection reads the
            pre-activations about five times, and which form the gradients before Adam reads them.
    """
    weights, entries = latents * d_model, tokens * k
    rows, dense = FLOAT * tokens * d_model, tokens * latents
    low = HALF if bf16 else FLOAT
    narrow = (FLOAT + HALF) * (weights + tokens * d_model) if bf16 else 0  # bf16 copies of both factors
    product = Stage("encoder's product", 2 * dense * d_model, narrow + low * (weights + tokens * d_model + dense))
    gather = FLOAT * entries * d_model
    adam = Stage("Adam, and unit rows", 0, 2 * 6 * FLOAT * weights)  # weights and two moments, read and written
    if kernels:
        return [
            product,
            Stage("selection", 0, low * dense + 2 * FLOAT * entries),
            Stage("order by latent", 0, 2 * 3 * 2 * FLOAT * entries),
            Stage("decode, loss, gradient of the activations", 0, 4 * rows + FLOAT * weights, gather),
            Stage("gradients of both matrices", 0, 2 * rows, 2 * gather),
            adam,
        ]
    bias = (low + FLOAT) * dense if bf16 else 0  # added by another pass, to float32
    return [
        product,
        Stage("bias", 0, bias),
        Stage("selection", 0, 5 * FLOAT * dense),
        Stage("order by latent", 0, 2 * 3 * 2 * FLOAT * entries),
        Stage("decode", 0, rows + FLOAT * weights, gather),
        Stage("loss", 0, 6 * rows),
        Stage("gradient of the activations", 0, rows + 4 * gather),  # rows are gathered into memory, and multiplied
        Stage("gradients of both matrices", 0, 2 * rows + 2 * FLOAT * weights, 2 * gather),
        adam._replace(
            moved=adam.moved + 2 * FLOAT * weights + 2 * FLOAT * weights
        ),  # gradients; unit rows by themselves
    ]


def memory(
    tokens: int, latents: int, d_model: int, k: int, bf16: bool = True, kernels: bool = True
) -> list[tuple[str, int]]:
    """(what, bytes) that one SAE needs on the device at the same time, at most; the batch is there twice."""
    weights, rows, dense, entries = latents * d_model, tokens * d_model, tokens * latents, tokens * k
    low = HALF if bf16 else FLOAT
    found = [
        ("weights and two moments", 2 * 3 * FLOAT * weights),
        ("one gradient, where no kernel applies it", 0 if kernels else FLOAT * weights),
        ("bf16 copies of both factors", HALF * (weights + rows) if bf16 else 0),
        ("pre-activations", low * dense + (0 if kernels or not bf16 else FLOAT * dense)),  # the bias makes them float32
        ("codes, their order and gradients", 6 * 2 * FLOAT * entries),
        ("rows gathered at once", 0 if kernels else 3 * FLOAT * 2**26),
        ("batch, input, centred input, reconstruction, its gradient", 2 * HALF * rows + 4 * FLOAT * rows),
    ]
    return [(what, size) for what, size in found if size]


def step_seconds(
    ceilings: Ceilings, tokens: int, latents: int, d_model: int, k: int, bf16: bool = True, kernels: bool = True
) -> float:
    """The time of a step whose stages follow one another."""
    return sum(ceilings.seconds(stage, bf16) for stage in stages(tokens, latents, d_model, k, bf16, kernels))
