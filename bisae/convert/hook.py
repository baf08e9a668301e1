"""Where an SAE reads in an LM: other libraries' names for layers, and for parts of decoder blocks."""

import re
from typing import NamedTuple

from bisae.cells.find import FoundCell
from bisae.runtime.errors import Refused

STREAMS = (  # names of the residual stream at block N, and the layer it is here: N plus this number
    (re.compile(r"blocks\.(\d+)\.hook_resid_pre"), 0),  # TransformerLens
    (re.compile(r"blocks\.(\d+)\.hook_resid_post"), 1),
    (re.compile(r"resid_post_layer_(\d+)"), 1),  # dictionary_learning
)
PARTS = (  # the output of a block's attention or MLP, whatever the LM's family calls the module
    re.compile(r"blocks\.(?P<block>\d+)\.hook_(?P<part>att|mlp)n?_out"),
    re.compile(r"(?P<part>att|mlp)(?:n|ention)?_out_layer_(?P<block>\d+)"),
)
BLOCK = re.compile(
    r"(?:\w+\.)*?(?:layers|h|blocks)\.(\d+)(?:\.(\w[\w.]*))?"
)  # the path of a decoder block, or of a part of it
EMBEDDINGS = re.compile(r"hook_embed|(?:\w+\.)*(?:embed_tokens|embed_in|wte)")


class Read(NamedTuple):
    """A layer (L: the output of block L; 0: the embeddings), and a part of its block.

    `part`: the part's path, or a text that is in it; None: the residual stream.
    """

    layer: int
    part: str | None


def read_of(hook: str) -> Read:
    """The place that another library's name stands for; an unknown name is refused as `source`."""
    if EMBEDDINGS.fullmatch(hook):
        return Read(0, None)
    for pattern, later in STREAMS:
        if found := pattern.fullmatch(hook):
            return Read(int(found[1]) + later, None)
    for pattern in PARTS:
        if found := pattern.fullmatch(hook):
            return Read(int(found["block"]) + 1, found["part"])
    if (found := BLOCK.fullmatch(hook)) and not (found[2] or "").startswith("hook_"):
        return Read(int(found[1]) + 1, found[2])
    raise Refused("source", hook, "is not a known residual stream; give layer=... if it is one")


def path(cell: FoundCell) -> str:
    """The module that the cell reads, by Llama's names, below the backbone."""
    block = f"layers.{cell.layer - 1}" if cell.layer else "embed_tokens"
    return f"{block}.{cell.hook}" if cell.hook else block


def transformer_lens(cell: FoundCell) -> str:
    """TransformerLens' name for where the cell reads.

    For a part of a block it is the module's path, since TransformerLens' names of parts do not tell which module it is.
    """
    if cell.hook:
        return path(cell)
    return f"blocks.{cell.layer - 1}.hook_resid_post" if cell.layer else "blocks.0.hook_resid_pre"


def submodule(cell: FoundCell) -> str:
    """dictionary_learning's name for where the cell reads."""
    return path(cell) if cell.hook or not cell.layer else f"resid_post_layer_{cell.layer - 1}"
