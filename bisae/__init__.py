"""bisae: watch a bilingual language model become bilingual.

The flow of data, a package a step: corpus -> lm -> activations -> training -> cells -> features -> analysis -> report.

`load` reads a trained SAE, `find_cells` finds trained cells. Their names and arguments stay stable.

The axes of arrays have the same names everywhere:

| axis       | meaning                                                               |
|------------|-----------------------------------------------------------------------|
| `token`    | tokens of a batch or shard, BOS and padding already gone              |
| `d_model`  | width of the LM's residual stream                                     |
| `latent`   | hidden units of the SAE ("features" in reports, as the paper says)    |
| `k`        | kept latents per token, where their number is fixed                   |
| `entry`    | non-zeros of a sparse code, all tokens of a batch one after the other |
| `sequence` | sequences of an LM batch                                              |
| `position` | positions of a sequence, BOS and padding included                     |
| `language` | languages of the corpus, in its order                                 |

Layers are 1-based as in the paper: layer L is the output of decoder block L, layer 0 the embeddings.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bisae.cells.find import find_cells
    from bisae.sae.store import load

__all__ = ["find_cells", "load"]


def __getattr__(name: str) -> Any:
    """Import what `__all__` names when it is first used: `import bisae` must not import PyTorch."""
    if name == "find_cells":
        from bisae.cells.find import find_cells

        return find_cells
    if name == "load":
        from bisae.sae.store import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
