"""A job: the members trained together, what of them is still to do, and the one save it goes on from."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bisae.cells.cell import Cell
from bisae.config.choices import variants
from bisae.config.keys import refused_by_key
from bisae.config.moved import MERGED, as_first_named
from bisae.config.settings import SAEKeys
from bisae.lm.model import Checkpoint
from bisae.runtime.errors import Refused
from bisae.runtime.lock import sole_writer
from bisae.runtime.ranks import announce, announced, rank, withdraw
from bisae.runtime.values import listed, writable
from bisae.training.baselines import check_baseline
from bisae.training.callbacks import callbacks_identity
from bisae.training.flags import trainer_identity, trial_flags
from bisae.training.save_files import delete_others
from bisae.training.start import PREVIOUS, Start, named_start


@dataclass(frozen=True)
class Member:
    """One SAE of a job: its layer, its own settings, and the cell it becomes."""

    layer: int
    lr: float
    settings: Mapping[str, Any]  # config group `sae` with one value a key
    cell: Cell
    start: Start | None = None  # None: fresh weights
    snapshots: Mapping[int, Cell] = field(default_factory=dict)  # what it becomes on the way, by tokens

    @property
    def cells(self) -> list[Cell]:
        """The cell, and those of its snapshots."""
        return [self.cell, *self.snapshots.values()]

    @property
    def finished(self) -> bool:
        return all(cell.finished for cell in self.cells)

    @property
    def architecture(self) -> dict[str, Any]:
        """The settings that construct the SAE: `_target_` and its arguments but d_model."""
        return {key: value for key, value in self.settings.items() if key not in SAEKeys.model_fields}


CONSTANT = "bisae.training.schedule.constant"  # the scheduler that there was before there was a choice
DECAYS = ("bisae.training.schedule.linear", "bisae.training.schedule.cosine")  # which begin=1 makes the same
GOING_ON, ANEW = "going on", "anew"  # the first line of what rank 0 announces; then the cells to train


def cell_identity(
    layer: int, sae: Mapping[str, Any], shared: Mapping[str, Any], start: object = None
) -> dict[str, Any]:
    """All that changes a cell's result, and so makes its hash: not the name of its SAE, nor where its classes lie now.

    `sae`: config group `sae` with one value a key; `shared`: what members of a job have in common; `start`: what stands
    for the SAE that the cell starts from, None for fresh weights.
    """
    settings = {key: sae[key] for key in sae if key not in ("name", "start", "encoder_norm", "baseline")}
    if settings.get("candidates") == "auto" and settings["_target_"] not in MERGED:
        del settings["candidates"]  # the latents are the same; cell.json says how they were computed
    if start is not None:
        return as_first_named({"layer": layer, "sae": settings, **shared, "start": start})
    if (norm := sae.get("encoder_norm", 1)) != 1:  # of fresh weights
        settings["encoder_norm"] = float(norm)
    if sae.get("baseline"):
        settings["baseline"] = sae["baseline"]
    return as_first_named({"layer": layer, "sae": settings, **shared})


def training_identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of the resolved config of train.py changes results, but for `sae` and for what is read: LM, text, context.

    A job and a plan of it have it from here, so that a plan knows its cells.

    Raises:
        ConfigError: a key of `trainer` that may not be set, or a callback that cannot be used.
    """
    called = callbacks_identity(config.get("callbacks") or {})
    with refused_by_key(config, "trainer"):
        trained_by = trainer_identity(config["trainer"], watched=bool(called))
        trial = trial_flags(config["trainer"])
        if trained_by["precision"] == "16-mixed" and any(listed(config["sae"].get("aux_k", 0))):
            remedy = "would lose the small gradients of the auxiliary loss (sae.aux_k); choose bf16-mixed"
            raise Refused("precision", "16-mixed", remedy)
    found = {
        "data": {key: value for key, value in config["data"].items() if not key.endswith("split")},
        "optimizer": {key: value for key, value in config["optimizer"].items() if key != "by_block"},  # the same bits
        **trained_by,
        **({"callbacks": called} if called else {}),
        **({"trial": trial} if trial else {}),  # so that no trial has the place, the save or the lock of a cell
    }
    if (precision := config.get("matmul_precision", "highest")) != "highest":
        found["matmul_precision"] = precision
    scheduler = {key: value for key, value in config["scheduler"].items() if key != "_partial_"}
    if scheduler["_target_"] != CONSTANT and not (scheduler["_target_"] in DECAYS and scheduler["begin"] == 1):
        found["scheduler"] = {key: float(value) if type(value) is int else value for key, value in scheduler.items()}
    return found


def plan_members(
    runs: Path,
    checkpoint: Checkpoint,
    layers: Sequence[int],
    sae: Mapping[str, Any],
    shared: Mapping[str, Any],
    before: Sequence[Member] = (),
    snapshots: Sequence[int] = (),
    k_by_layer: Mapping[int, int] = MappingProxyType({}),
) -> list[Member]:
    """One member a layer and combination of the list-valued keys of `sae`.

    Args:
        runs: where cells lie.
        checkpoint: the LM at one step.
        layers: of the residual stream.
        sae: config group `sae`.
        shared: what else changes the result, the same for all members: `training_identity`, and fingerprints.
        before: the members of the checkpoint before, planned by the same settings, for start=previous; empty for the
            first, whose SAEs start from fresh weights.
        snapshots: tokens of the training after which a member becomes a cell of its own too.
        k_by_layer: k of layers whose members do not have the k of `sae`.

    Raises:
        Refused: `runs`, if a folder has the place of a cell and is none; `start`: see `named_start`; `baseline`.
    """
    members = []
    for layer in layers:
        for settings in variants(sae, k_by_layer.get(layer)):
            check_baseline(settings)
            start = _start(settings, layer, before, runs)
            identity = cell_identity(layer, settings, shared, start and start.identity)
            place = runs, checkpoint.model, checkpoint.step, layer, settings["name"]
            parts = {tokens: Cell(*place, {**identity, "snapshot": tokens}) for tokens in snapshots}
            members.append(Member(layer, settings["lr"], settings, Cell(*place, identity), start, parts))
            for cell in members[-1].cells:
                if cell.folder.exists() and not cell.finished:
                    raise Refused("runs", runs, f"{cell.folder} holds no cell.json, so it is no cell; move it away")
    return members


def _start(settings: Mapping[str, Any], layer: int, before: Sequence[Member], runs: Path) -> Start | None:
    where = settings.get("start")
    if where is None or (where == PREVIOUS and not before):
        return None
    if where != PREVIOUS:
        return named_start(where, runs, layer, cell_identity(layer, settings, {})["sae"])
    (same,) = (member.cell for member in before if member.layer == layer and member.settings == settings)
    return Start(same.folder, same.hash)


def check_tokens(cells: Sequence[Cell], training: int, validation: int) -> None:
    """Refused if a finished cell had fewer tokens, since its corpus was short (`short_split=take`)."""
    for cell in cells:
        # Cells of older versions have as many as were asked for.
        used = cell.read()["provenance"].get("tokens", {}) if cell.finished else {}
        for key, asked, had in (
            ("tokens", training, used.get("training", training)),
            ("validation_tokens", validation, used.get("validation", validation)),
        ):
            if had < asked:
                remedy = f"{cell.folder} was made with all {had} there are; short_split=take accepts that"
                raise Refused(key, asked, remedy)


def check_snapshots(snapshots: Sequence[int], batch: int, tokens: int) -> None:
    """Refused (`snapshots`) unless all are whole steps of `batch` tokens before the end, after `tokens`, each once."""
    for number, asked in enumerate(snapshots):
        nearest = min(max(0, round(asked / batch)), max(0, tokens // batch - 1)) * batch
        if asked % batch:
            raise Refused("snapshots", asked, f"must be a multiple of the batch, {batch}; the nearest is {nearest}")
        if asked >= tokens:
            raise Refused("snapshots", asked, f"the training ends after {tokens} tokens, with a cell anyway")
        if asked in snapshots[:number]:
            raise Refused("snapshots", asked, "name each number of tokens once")


@dataclass(frozen=True)
class Job:
    """Members of one (model, checkpoint). `anew`: those that are finished are trained again."""

    runs: Path
    members: Sequence[Member]
    anew: bool = False

    def __post_init__(self) -> None:
        # A save holds the members by position: the same set must always stand in the same order. At the first
        # checkpoint of a ladder start=previous makes the cell that start=null makes.
        once = {member.cell.name: member for member in self.members}
        object.__setattr__(self, "members", [once[name] for name in sorted(once)])

    @property
    def layers(self) -> list[int]:
        return sorted({member.layer for member in self.members})

    @property
    def key(self) -> str:
        """16 hex digits for the set of members, which stand in one order, and their snapshots.

        Jobs with other snapshots have no save in common, which may be of a later step than a snapshot.
        """
        names = "\n".join(cell.name for member in self.members for cell in member.cells)
        return hashlib.sha256(names.encode()).hexdigest()[:16]

    @property
    def folder(self) -> Path:
        """Where the job's lock and training state lie."""
        return self.runs / ".jobs" / self.key

    @property
    def save(self) -> Path:
        """The training state, which holds the weights of all members."""
        return self.folder / "save.ckpt"

    def delete_save(self) -> None:
        """The job will begin anew, or has ended."""
        delete_others(self.save, keep=[])

    @property
    def trial(self) -> Mapping[str, Any]:
        """The arguments of the Trainer that make it a trial, which leaves nothing; empty if it is none."""
        found: dict[str, Any] = self.members[0].cell.identity.get("trial", {}) if self.members else {}
        return found

    @property
    def may_stop(self) -> bool:
        """Whether callbacks that are part of the cells' identity may end the training early."""
        return bool(self.members) and "callbacks" in self.members[0].cell.identity

    @property
    def finished(self) -> bool:
        return all(member.finished for member in self.members)

    def remaining(self, force: bool) -> "Job":
        """The job of the members still to train, with `force` all of them.

        A killed job that has a save goes on with all its members, also those whose cells it had written.
        """
        unfinished = [member for member in self.members if not member.finished]
        return replace(self, anew=force) if force or self.going_on else Job(self.runs, unfinished)

    @property
    def going_on(self) -> bool:
        """Whether this is a killed job with a save; the save of a finished job is none to go on from."""
        return self.save.exists() and not self.finished

    @contextmanager
    def hold(self, force: bool) -> Iterator["Job"]:
        """The `remaining` job, locked: the same SAEs asked for twice at once are trained once.

        Without members if nothing remains. Under DDP rank 0 holds the locks; the others get what it announced.
        """
        if rank() > 0:
            going_on, *names = announced().splitlines()
            job = Job(self.runs, [member for member in self.members if member.cell.name in names])
            if going_on == GOING_ON and not job.save.exists():
                raise Refused("runs", self.runs, "must be the same folder on all machines")
            yield job
            return
        try:
            if self.finished and not force:
                announce(ANEW)
                yield Job(self.runs, [])
                return
            writable({"runs": self.runs})
            with ExitStack() as locks:
                locks.enter_context(sole_writer(self.folder))
                remaining = self.remaining(force)
                while remaining.members and remaining.key != self.key:
                    locks.enter_context(sole_writer(remaining.folder))
                    if remaining.key == self.remaining(force).key:
                        break
                    remaining = self.remaining(force)
                if not remaining.members:
                    announce(ANEW)
                yield remaining
        finally:
            withdraw()

    def begin(self) -> None:
        """Rank 0: move finished cells aside, since they are trained again, and let the other ranks go on."""
        if rank() > 0:
            return
        if not self.going_on:
            self.delete_save()
            for cell in (cell for member in self.members for cell in member.cells):
                if self.anew and cell.finished:
                    cell.move_aside()
        names = (member.cell.name for member in self.members)
        announce("\n".join([GOING_ON if self.going_on else ANEW, *names]))
