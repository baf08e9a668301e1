"""Where in an LM an SAE reads: the names other libraries have for our layers, and for the parts of their blocks."""

import re
from typing import NamedTuple

from bisae.cells.find import FoundCell
from bisae.runtime.errors import Refused

STREAMS = (  # names of residual streams, and the layer block N's is
    (re.compile(r"blocks\.(\d+)\.hook_resid_pre"), 0),  # TransformerLens
    (re.compile(r"blocks\.(\d+)\.hook_resid_post"), 1),
    (re.compile(r"resid_post_layer_(\d+)"), 1),  # dictionary_learning
)
PARTS = (  # what a block's attention or MLP puts out, whatever a family calls the part
    re.compile(r"blocks\.(?P<block>\d+)\.hook_(?P<part>att|mlp)n?_out"),
    re.compile(r"(?P<part>att|mlp)(?:n|ention)?_out_layer_(?P<block>\d+)"),
)
BLOCK = re.compile(r"(?:\w+\.)*?(?:layers|h|blocks)\.(\d+)(?:\.(\w[\w.]*))?")  # a decoder block's path, or its part's
EMBEDDINGS = re.compile(r"hook_embed|(?:\w+\.)*(?:embed_tokens|embed_in|wte)")


class Read(NamedTuple):
    """Our layer, and the part of its block: its path or what that contains; None for the residual stream."""

    layer: int
    part: str | None


def read_of(hook: str) -> Read:
    """Refused for a name that is not known."""
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
    raise Refused("source", hook, "is no residual stream that is known; give layer=... if it is one")


def path(cell: FoundCell) -> str:
    """Below a backbone's own name, as in Llama."""
    block = f"layers.{cell.layer - 1}" if cell.layer else "embed_tokens"
    return f"{block}.{cell.hook}" if cell.hook else block


def transformer_lens(cell: FoundCell) -> str:
    """A path where a part of a block is read: TransformerLens' own names of parts do not tell which module it is."""
    if cell.hook:
        return path(cell)
    return f"blocks.{cell.layer - 1}.hook_resid_post" if cell.layer else "blocks.0.hook_resid_pre"


def submodule(cell: FoundCell) -> str:
    """As dictionary_learning names them."""
    return path(cell) if cell.hook or not cell.layer else f"resid_post_layer_{cell.layer - 1}"
