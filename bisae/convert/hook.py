"""Where in an LM an SAE reads: the names other libraries have for our layers."""

import re

from bisae.errors import ConfigError

STREAMS = (  # names of residual streams, and the layer block N's is
    (re.compile(r"blocks\.(\d+)\.hook_resid_pre"), 0),  # TransformerLens
    (re.compile(r"blocks\.(\d+)\.hook_resid_post"), 1),
    (re.compile(r"resid_post_layer_(\d+)"), 1),  # dictionary_learning
    (re.compile(r"(?:\w+\.)*(?:layers|h|blocks)\.(\d+)"), 1),  # the path of a decoder block
)
EMBEDDINGS = re.compile(r"hook_embed|(?:\w+\.)*(?:embed_tokens|embed_in|wte)")


def layer_of(hook: str) -> int:
    """Our layer; ConfigError for what is no residual stream."""
    if EMBEDDINGS.fullmatch(hook):
        return 0
    for pattern, later in STREAMS:
        if found := pattern.fullmatch(hook):
            return int(found[1]) + later
    raise ConfigError("source", hook, "is no residual stream that is known; give layer=... if it is one")


def block_path(layer: int) -> str:
    """Below a backbone's own name, as in Llama."""
    return f"layers.{layer - 1}" if layer else "embed_tokens"


def transformer_lens(layer: int) -> str:
    return f"blocks.{layer - 1}.hook_resid_post" if layer else "blocks.0.hook_resid_pre"


def submodule(layer: int) -> str:
    return f"resid_post_layer_{layer - 1}" if layer else "embed_tokens"
