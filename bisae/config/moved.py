"""Classes by the paths they had once: configs written then still work, and cells keep their names."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

# Only classes that a config may name; the path in an identity stays the first one a class had.
MOVED = {
    "bisae.patterns.contexts.Paper": "bisae.features.contexts.Paper",
    "bisae.patterns.contexts.Quantile": "bisae.features.contexts.Quantile",
    "bisae.patterns.contexts.Top": "bisae.features.contexts.Top",
    "bisae.plan.device.Device": "bisae.grid.device.Device",
    "bisae.sae.batch_topk.BatchTopK": "bisae.sae.architectures.batch_topk.BatchTopK",
    "bisae.sae.blocked.BlockedAdam": "bisae.training.blocked_adam.BlockedAdam",
    "bisae.sae.jump_relu.JumpReLU": "bisae.sae.architectures.jump_relu.JumpReLU",
    "bisae.sae.matryoshka.Matryoshka": "bisae.sae.architectures.matryoshka.Matryoshka",
    "bisae.sae.raw.RawJumpReLU": "bisae.sae.architectures.raw.RawJumpReLU",
    "bisae.sae.raw.RawReLU": "bisae.sae.architectures.raw.RawReLU",
    "bisae.sae.raw.RawTopK": "bisae.sae.architectures.raw.RawTopK",
    "bisae.sae.relu_l1.ReLUL1": "bisae.sae.architectures.relu_l1.ReLUL1",
    "bisae.sae.topk.TopK": "bisae.sae.architectures.topk.TopK",
    "bisae.sae.triton_topk.TritonTopK": "bisae.sae.architectures.triton_topk.TritonTopK",
    "bisae.spaces.lm.LMSpace": "bisae.features.spaces.lm_space.LMSpace",
    "bisae.spaces.sentence_transformers.SentenceTransformersSpace": "bisae.features.spaces.sentence_transformers.SentenceTransformersSpace",  # noqa: E501
    "bisae.spaces.shipped.ShippedSpace": "bisae.features.spaces.shipped.ShippedSpace",
    "bisae.spaces.use.UseSpace": "bisae.features.spaces.use.UseSpace",
    "bisae.translation.jsonl_tasks.JsonlTasks": "bisae.translation.tasks.JsonlTasks",
    "bisae.translation.pair_tasks.PairTasks": "bisae.translation.tasks.PairTasks",
    "bisae.translation.prompt.Prompt": "bisae.translation.prompts.Prompt",
    "bisae.wandb_runs.WandbRuns": "bisae.training.wandb_runs.WandbRuns",
}
# Classes whose work another one does now.
MERGED = {
    "bisae.sae.candidate_topk.CandidateTopK": "bisae.sae.TopK",
    "bisae.sae.architectures.candidate_topk.CandidateTopK": "bisae.sae.TopK",
}
FIRST = {
    **{new: old for old, new in MOVED.items()},
    "bisae.sae.architectures.candidate_topk.CandidateTopK": "bisae.sae.candidate_topk.CandidateTopK",
}


def current(path: Any) -> Any:
    """The path of a class today; what is no path comes back as it is."""
    return {**MOVED, **MERGED}.get(path, path) if isinstance(path, str) else path


def with_current_paths(node: Any) -> Any:
    """A config node in which every `_target_` is a path of today; the node itself if nothing has moved."""
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    replaced = _with_paths(plain, {**MOVED, **MERGED})
    return node if replaced == plain else replaced


def as_first_named(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity in which every `_target_` is the first path of its class: its hash stays what it was."""
    replaced: dict[str, Any] = _with_paths(identity, FIRST)
    return replaced


def _with_paths(node: Any, paths: Mapping[str, str]) -> Any:
    if isinstance(node, Mapping):
        return {
            key: paths.get(value, value) if key == "_target_" and isinstance(value, str) else _with_paths(value, paths)
            for key, value in node.items()
        }
    return [_with_paths(value, paths) for value in node] if isinstance(node, list) else node
