"""W&B: one run per cell, offline unless asked otherwise; never a reason for a job to stop."""

import hashlib
import json
import logging
import os
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bisae.cells.find import FoundCell
from bisae.runtime.atomic import write_json
from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Text, Texts
from bisae.runtime.ranks import under_wandb_agent
from bisae.training.cell_runs import axes, own_config, run_name
from bisae.training.run_log import RunLog

log = logging.getLogger("bisae.wandb")

INIT_SECONDS = 30  # W&B waits 90 for a server that does not answer
FINISH_SECONDS, UPLOAD_SECONDS = 60, 600  # W&B has no limit, and hangs if the network has gone away
KEPT = 1000  # rows of a run, of which W&B's service writes the last within seconds
MODES = {"dryrun": "offline", "run": "online"}  # former names, which WANDB_MODE may have
# Of the environment, what W&B would take and bisae decides: a cell's run follows from the cell.
DECIDED = ("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM")
AGENTS = ("sweep_id", "run_id", "sweep_param_path")  # settings of W&B that its agent gives by environment


Lines = Mapping[str, Mapping[str, Mapping[int, float]]]


class WandbRuns(RunLog):
    """Opens, feeds and closes the W&B run of each cell (config group `logger`).

    A run's id follows from its cell, so a resumed job goes on in the same run, and so do analyses. Under `wandb agent`
    the run of a cell is the agent's, with the agent's id (`ids`). Offline each part of a run has a folder of its own,
    which `wandb sync` puts together.

    Args:
        mode: "offline", "online" or "disabled"; online becomes offline where W&B cannot be reached.
        project, entity: where the runs go; entity None: WANDB_ENTITY, else the user's own.
        folder: `wandb/` in it has the runs.
        upload: whether W&B gets the cells themselves, not only where they lie.
        name: of the run of a job with one cell; in jobs of several, and in sweeps, it stands before each cell's own.
        tags, notes, group, job_type: of all runs; None: as the environment says (WANDB_TAGS, ...).
    """

    title = "W&B"
    log_to = log

    def __init__(
        self,
        mode: str,
        project: Text,
        entity: str | None,
        folder: Text | None,
        upload: bool,
        name: Text | None = None,
        tags: Texts | None = None,
        notes: Text | None = None,
        group: Text | None = None,
        job_type: Text | None = None,
    ) -> None:
        super().__init__()
        mode = MODES.get(mode, mode)
        if mode not in ("offline", "online", "disabled"):
            raise Refused("mode", mode, "choose offline, online or disabled")
        self.mode, self.project, self.entity, self.folder = mode, project, entity, Path(folder or "runs")
        self.upload, self.name = upload, name
        each = tags.split(",") if isinstance(tags, str) else tags and list(tags)
        about: dict[str, Any] = {"tags": each, "notes": notes, "group": group, "job_type": job_type}
        self.about = {key: value for key, value in about.items() if value is not None}
        self._rows: dict[str, deque[dict[str, float]]] = {}  # by run, in case W&B's service dies before it writes them
        self._started: dict[str, tuple[Any, ...]] = {}  # with what `_start` was called, by run
        self._alive = True  # W&B's service is
        self.ids: dict[str, str] = {}  # that W&B has given the runs which were opened
        self._kept: dict[str, dict[str, Any]] = {}  # of runs of cells, by id: what `add` needs to go on in them

    def overridden(self) -> str:
        """Each variable of W&B's that is set to something else than what is used, and what is used."""
        about = {**self.about, "tags": ",".join(self.about.get("tags", ())) or None}
        used: dict[str, Any] = {"MODE": self.mode, "PROJECT": self.project, "ENTITY": self.entity, "NAME": self.name}
        used |= {"DIR": str(self.folder), "TAGS": about["tags"], "NOTES": about.get("notes")}
        used |= {"RUN_GROUP": about.get("group"), "JOB_TYPE": about.get("job_type")}
        found = {f"WANDB_{name}": value for name, value in used.items() if value is not None}
        asked = {name: MODES.get(os.environ[name], os.environ[name]) for name in found if os.environ.get(name)}
        lines: list[str] = []
        decided: tuple[str, ...] = DECIDED
        if under_wandb_agent():
            decided = tuple(name for name in DECIDED if name != "WANDB_RUN_ID")
            for name in ("PROJECT", "ENTITY"):
                agents, own = asked.pop(f"WANDB_{name}", None), used[name]
                lines += [f"logger.{name.lower()}={own} gives way to the agent's {agents}"] if agents != own else []
        lines += [f"{name}={asked[name]} gives way to {found[name]}" for name in asked if asked[name] != found[name]]
        return ", ".join([*lines, *(f"{name} is not used" for name in decided if os.environ.get(name))])

    def open(self, run: str, name: str, group: str, axes: Mapping[str, Any], alone: bool = False) -> None:
        if self.name:
            name = self.name if alone else f"{self.name} {name}"
        self._kept[run] = {"name": name, "group": group, "axes": dict(axes), "summary": {}}
        self._start(run, name, axes, {"group": group, **self.about}, agents=under_wandb_agent())
        if run in self._runs:
            self.ids[run] = self._runs[run].id

    def _start(
        self, run: str, name: str, axes: Mapping[str, Any], about: Mapping[str, Any], agents: bool = False
    ) -> None:
        """Start the run with this id, or go on in it; `agents`: the run of W&B's agent, with its id."""
        if self.mode == "disabled":
            return
        try:
            import wandb

            if under_wandb_agent() and not agents:
                for setting in AGENTS:  # which else count more than what `init` is told
                    setattr(wandb.setup().settings, setting, None)
            if self.mode == "online" and not wandb.login(prompt=False):  # init would ask and wait
                raise ConnectionError("not logged in; run `wandb login`")
            self.folder.mkdir(parents=True, exist_ok=True)
            started = wandb.init(
                id=run,
                name=name,
                project=self.project,
                entity=self.entity,
                dir=self.folder,
                mode=self.mode,  # type: ignore[arg-type]
                config=dict(axes),
                resume="allow",  # offline it is for `wandb sync`
                reinit="create_new",  # several cells of a job log side by side
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    init_timeout=INIT_SECONDS,
                    finish_timeout=UPLOAD_SECONDS if self.upload else FINISH_SECONDS,
                    finish_timeout_raises=True,
                ),
                **about,
            )
            # Tokens, not W&B's own step: a resumed offline run begins again at step 0.
            started.define_metric("*", step_metric="tokens")
            self._runs[run], self._started[run] = started, (name, axes, about, agents)
        except Exception as error:  # W&B may fail in any way; the job goes on
            if self.mode == "offline":
                self._give_up(run, error)
                return
            log.warning("W&B goes on offline, `wandb sync` uploads later: %s: %s", type(error).__name__, error)
            self.mode = "offline"
            if not self._runs:
                with suppress(Exception):
                    wandb.teardown()  # else W&B says that the run which failed to start is in use
            self._start(run, name, axes, about, agents)

    def log(self, run: str, metrics: Mapping[str, float], tokens: int) -> None:
        if run in self._runs:
            self._rows.setdefault(run, deque(maxlen=KEPT)).append({**metrics, "tokens": tokens})
            with self.tried(run):
                try:
                    if self._alive:
                        self._runs[run].log(self._rows[run][-1])
                except ConnectionError:  # `finish` logs what is missing, since the job may have to save first
                    self._alive = False

    def log_cell(self, run: str, folder: Path) -> None:
        """Log the finished cell in `folder` as an artifact of type "sae": by reference, or with `upload` itself."""
        if run in self._runs and not self._alive:
            self._revive()
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
        self._start(run, name, settings, {**self.about, "group": kind})  # by which `bisae dashboard` finds reports
        if run in self._runs:
            with self.tried(run):
                import wandb

                pictures = {f"figures/{path.stem}": wandb.Image(str(path)) for path in figures if path.suffix == ".png"}
                shown = {table: wandb.Table(dataframe=_plain(rows)) for table, rows in tables.items()}
                self._runs[run].log({**shown, **pictures})
                artifact = wandb.Artifact(f"report-{run}", type="report")
                for file in files:
                    artifact.add_reference(file.resolve().as_uri())
                self._runs[run].log_artifact(artifact)
        self.finish(run, {})

    def log_sweep(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], lines: Lines) -> None:
        """A run of its own for a sweep.

        Args:
            name: of the sweep, the group of its runs.
            columns, rows: the table of its cells.
            lines: a chart each metric: each line's values by LM step, by the line's name.
        """
        run = hashlib.sha256(name.encode()).hexdigest()[:12]
        about = {"group": name, **self.about, "job_type": "sweep"}
        self._start(run, name, {"sweep": name, "cells": len(rows)}, about)
        if run in self._runs:
            with self.tried(run):
                import wandb

                charts = {
                    f"over_step/{metric}": wandb.plot.line_series(
                        [list(line) for line in of.values()],
                        [list(line.values()) for line in of.values()],
                        keys=list(of),
                        title=f"{metric} over LM step",
                        xname="LM step",
                    )
                    for metric, of in lines.items()
                }
                self._runs[run].log({"cells": wandb.Table(list(columns), [list(row) for row in rows]), **charts})
        self.finish(run, {})

    def add(self, cell: FoundCell, lm: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        """Add figures to the summary of a finished cell's run, unless it has them.

        Offline this is another part of the run. Since W&B keeps the summary of the last part only, each part has all
        figures: what training said is kept beside the runs, and a cell trained elsewhere says it itself.

        Args:
            cell: the cell, whose `cell.json` names the run.
            lm: `parameters`, `d_model` and `lm_tokens` of its LM's checkpoint.
            figures: by name; what is None is left out.
        """
        run = cell.provenance.get("wandb_run")
        if self.mode == "disabled" or not run:
            return
        with self.tried(run):
            kept = self._told(run, cell) or self._described(cell, lm)
            summary = kept["summary"] | {name: value for name, value in figures.items() if value is not None}
            if summary != kept["summary"]:
                self._kept[run] = kept
                self._start(run, kept["name"], kept["axes"], {"group": kept["group"], **self.about})
                self.finish(run, summary)

    def _place(self, folder: Path, run: str) -> Path:
        return folder / "wandb" / ".cells" / f"{run}.json"

    def _told(self, run: str, cell: FoundCell) -> dict[str, Any] | None:
        """What is kept of a run, in this folder or else where the cell was trained."""
        for folder in (self.folder, cell.folder.parents[3] if len(cell.folder.parents) > 3 else self.folder):
            if (file := self._place(folder, run)).is_file():
                told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
                return told
        return None

    def _described(self, cell: FoundCell, lm: Mapping[str, Any]) -> dict[str, Any]:
        settings = cell.identity["sae"]
        config = own_config((cell.folder / "config.yaml").read_text(encoding="utf-8"), cell, settings)
        about = {**axes(cell, settings, lm), "config": config}
        return {"name": run_name(cell, settings), "group": None, "axes": about, "summary": dict(cell.metrics)}

    def _revive(self) -> None:
        """Go on in all open runs with another service, and with the rows that the last one has not written.

        A cluster's SIGTERM goes to all processes of a job, and ends W&B's service at once.
        """
        import wandb

        with suppress(Exception, SystemExit):
            wandb.teardown()
        lost, self._runs, self._alive = list(self._runs), {}, True
        for run in lost:
            written = max(self._written(run), default=-1)
            self._start(run, *self._started[run])
            with self.tried(run):
                for row in self._rows.get(run, ()) if run in self._runs else ():
                    if row["tokens"] > written:
                        self._runs[run].log(row)
                    self._runs[run].summary.update(row)  # of which only the last part's is kept

    def _written(self, run: str) -> Iterator[float]:
        """The tokens of the rows in the local files of a run."""
        from wandb.util import get_core_path

        run = self.ids.get(run, run)
        for file in sorted(self.folder.absolute().glob(f"wandb/*run-*-{run}/run-{run}.wandb")):
            command = [get_core_path(), "leet", "inspect", "--json", "--run-file", str(file), str(file.parents[1])]
            for line in subprocess.run(command, capture_output=True, text=True).stdout.splitlines():
                if "tokens" in (item := json.loads(line).get("history", {}).get("item", {})):
                    yield item["tokens"]

    def finish(self, run: str, summary: Mapping[str, Any], failed: bool = False) -> None:
        if run in self._runs:
            with self.tried(run):
                try:
                    self._runs[run].summary.update(dict(summary))
                except ConnectionError:
                    self._alive = False
                if not self._alive:
                    self._revive()
                    if run not in self._runs:
                        return
                    self._runs[run].summary.update(dict(summary))
                if kept := self._kept.pop(run, None):
                    place = self._place(self.folder, self.ids.get(run, run))
                    place.parent.mkdir(parents=True, exist_ok=True)
                    write_json(place, {**kept, "summary": dict(self._runs[run].summary)})
                self._runs.pop(run).finish(exit_code=int(failed))


def _plain(table: Any) -> Any:
    """W&B takes no missing integers, and None only beside values of one type."""
    return table.astype({name: float for name in table.select_dtypes("Int64")})
