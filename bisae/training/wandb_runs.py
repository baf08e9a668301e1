"""W&B: one run per cell, offline unless asked otherwise; never a reason for a job to stop."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bisae.lm.model import Checkpoint
from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Text
from bisae.training.job import Member

log = logging.getLogger("bisae.wandb")

INIT_SECONDS = 30  # W&B waits 90 for a server that does not answer
FINISH_SECONDS, UPLOAD_SECONDS = 60, 600  # W&B has no limit, and hangs if the network has gone away


def axes(checkpoint: Checkpoint, member: Member, job: str) -> dict[str, Any]:
    """The config of a cell's run, flat: what dashboards key on. `job` is its key; None stands for what is not known.

    `sweep` is WANDB_RUN_GROUP, which a sweep sets for its jobs.
    """
    named = ("latents", "k", "lr", "seed")
    others = member.settings.keys() - {"_target_", "name", *named}
    return {
        "model": checkpoint.model,
        "parameters": checkpoint.parameters,
        "d_model": checkpoint.d_model,
        "step": checkpoint.step,
        "lm_tokens": checkpoint.tokens_seen,
        "layer": member.layer,
        "sae": member.cell.sae,
        **{key: member.settings.get(key) for key in named},
        **{f"sae_{key}": member.settings[key] for key in sorted(others)},
        "job": job,
        "sweep": os.environ.get("WANDB_RUN_GROUP") or None,
        "cell": member.cell.name,
        "folder": str(member.cell.folder.resolve()),
    }


class WandbRuns:
    """Opens, feeds and closes the W&B run of each cell (config group `logger`).

    `mode`: "offline", "online" or "disabled"; online becomes offline where W&B cannot be reached. `upload`: whether W&B
    gets the cells themselves, not only where they lie. A run's id follows from its cell, so a resumed job goes on in
    the same run. Whatever W&B raises is logged once and that run is given up.
    """

    def __init__(
        self,
        mode: str,
        project: Text,
        entity: str | None,
        folder: Text,
        upload: bool,
    ) -> None:
        if mode not in ("offline", "online", "disabled"):
            raise Refused("mode", mode, "choose offline, online or disabled")
        self.mode, self.project, self.entity, self.folder = mode, project, entity, Path(folder)
        self.upload = upload
        self._runs: dict[str, Any] = {}

    def open(self, run: str, name: str, group: str, axes: Mapping[str, Any]) -> None:
        """Start the run with id `run`; `axes` are what dashboards key on."""
        if self.mode == "disabled":
            return
        try:
            import wandb

            if self.mode == "online" and not wandb.login(prompt=False):  # init would ask and wait
                raise ConnectionError("not logged in; run `wandb login`")
            self.folder.mkdir(parents=True, exist_ok=True)
            started = wandb.init(
                id=run,
                name=name,
                group=group,
                project=self.project,
                entity=self.entity,
                dir=self.folder,
                mode=self.mode,  # type: ignore[arg-type]
                config=dict(axes),
                resume="allow" if self.mode == "online" else None,
                reinit="create_new",  # several cells of a job log side by side
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    init_timeout=INIT_SECONDS,
                    finish_timeout=UPLOAD_SECONDS if self.upload else FINISH_SECONDS,
                    finish_timeout_raises=True,
                ),
            )
            # Tokens, not W&B's own step: a resumed offline run begins again at step 0.
            started.define_metric("*", step_metric="tokens")
            self._runs[run] = started
        except Exception as error:  # W&B may fail in any way; the job goes on
            if self.mode == "offline":
                self._give_up(run, error)
                return
            log.warning("W&B goes on offline, `wandb sync` uploads later: %s: %s", type(error).__name__, error)
            self.mode = "offline"
            if not self._runs:
                with suppress(Exception):
                    wandb.teardown()  # else W&B says that the run which failed to start is in use
            self.open(run, name, group, axes)

    def log(self, run: str, metrics: Mapping[str, float], tokens: int) -> None:
        """Log metrics of one run against tokens seen by the SAE."""
        if run in self._runs:
            try:
                self._runs[run].log({**metrics, "tokens": tokens})
            except Exception as error:
                self._give_up(run, error)

    def log_cell(self, run: str, folder: Path) -> None:
        """Log the finished cell in `folder` as an artifact of type "sae": by reference, or with `upload` itself."""
        if run in self._runs:
            try:
                import wandb

                artifact = wandb.Artifact(f"sae-{run}", type="sae")
                for file in sorted(folder.iterdir()):
                    if self.upload:
                        artifact.add_file(str(file), policy="immutable", skip_cache=True)  # else W&B stages a copy
                    else:
                        artifact.add_reference(file.resolve().as_uri())
                self._runs[run].log_artifact(artifact)
            except Exception as error:
                log.warning("W&B run %s goes on without its cell: %s: %s", run, type(error).__name__, error)

    def log_report(
        self,
        kind: str,
        name: str,
        settings: Mapping[str, Any],
        tables: Mapping[str, Any],
        figures: Sequence[Path],
        files: Sequence[Path],
    ) -> None:
        """A run of its own for a report: its `tables`, the pictures, and where its `files` lie.

        The same rows of the first table under the same settings go on in the same run.
        """
        about = json.dumps([next(iter(tables.values()))["hash"].tolist(), settings], sort_keys=True)
        run = hashlib.sha256(about.encode()).hexdigest()[:12]
        self.open(run, name, kind, settings)
        if run in self._runs:
            try:
                import wandb

                pictures = {f"figures/{path.stem}": wandb.Image(str(path)) for path in figures if path.suffix == ".png"}
                shown = {table: wandb.Table(dataframe=_plain(rows)) for table, rows in tables.items()}
                self._runs[run].log({**shown, **pictures})
                artifact = wandb.Artifact(f"report-{run}", type="report")
                for file in files:
                    artifact.add_reference(file.resolve().as_uri())
                self._runs[run].log_artifact(artifact)
            except Exception as error:
                self._give_up(run, error)
        self.finish(run, {})

    def finish(self, run: str, summary: Mapping[str, Any], failed: bool = False) -> None:
        """Close one run with its final metrics."""
        if run in self._runs:
            try:
                self._runs[run].summary.update(dict(summary))
                self._runs.pop(run).finish(exit_code=int(failed))
            except Exception as error:
                self._give_up(run, error)

    def close(self) -> None:
        """Close what is still open: the job ended before these cells did."""
        for run in list(self._runs):
            self.finish(run, {}, failed=True)

    def _give_up(self, run: str, error: Exception) -> None:
        self._runs.pop(run, None)
        log.warning("W&B run %s is given up, the work goes on: %s: %s", run, type(error).__name__, error)


def _plain(table: Any) -> Any:
    """W&B takes no missing integers, and None only beside values of one type."""
    return table.astype({name: float for name in table.select_dtypes("Int64")})
