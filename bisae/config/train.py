"""The settings of `train`, and of what plans and watches its jobs."""

from typing import Annotated, Any, Literal

from bisae.config.objects import Built, Loggers, Node
from bisae.config.settings import (
    Checkpoint,
    Command,
    Keys,
    Layers,
    Object,
    OptimizerKeys,
    Pack,
    SAEKeys,
    Short,
    Size,
    Store,
)
from bisae.runtime.ranges import Count, Index, Text, Texts


class DataKeys(Keys):
    split: Text
    validation_split: Text
    tokens: Count
    short_split: Short
    validation_tokens: Count
    epochs: Count
    batch: Count
    seed: Index
    block: Count
    pool_batches: Count
    window_pools: Count


class SweepKeys(Keys):
    pack: Pack


class TrainSettings(Command):
    size: Size
    checkpoint: Checkpoint
    ladder: list[Checkpoint] | None
    layer: Layers
    k_by_layer: dict[Index, Count] | None
    seed: Index = 0
    model: Object
    corpus: Object
    data: DataKeys
    activations: Store
    sae: Annotated[Node, Built("bisae.sae:SparseAutoencoder", ("d_model",), SAEKeys, lists=True, late=True)]
    optimizer: OptimizerKeys
    scheduler: Annotated[Node, Built(given=("optimizer", "warmup", "steps"), late=True)]
    trainer: Annotated[Node, Built("lightning:Trainer", late=True)]
    callbacks: dict[str, Annotated[Node, Built("lightning:Callback", late=True)] | None] = {}
    logger: Loggers
    runs: Text
    cache: Text
    spread: Literal["auto", "members", "ddp"]
    snapshots: list[Index]
    force: bool
    sweep: SweepKeys
    save_every: Count
    keep_save: bool
    log_every: Count
    matmul_precision: Literal["highest", "high", "medium"]
    optimized_metric: Text
    tags: Texts | None
    notes: Text | None
    group: Text | None
    job_type: Text | None
    grid: dict[str, Any] | None = None  # of an experiment; bisae plan reads it


class PlanSettings(TrainSettings):
    machine: Object
    layers_at_once: Count | None
    rates: Text | None
    contexts: Count
    write: Text | None


class StatusSettings(PlanSettings):
    html: Text | None


class RatesSettings(Command):
    runs: Text
    output: Text
