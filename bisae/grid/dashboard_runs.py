"""The runs of a grid in W&B."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bisae.runtime.errors import Refused

IS_CELL = "d_model"  # a config key that only runs of cells have
AT_ONCE = 200  # runs asked for in one message


@dataclass(frozen=True)
class LoggedRun:
    """`summary`: the last value of everything logged; a table or picture is a mapping with its `_type`."""

    id: str
    name: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]

    def logged(self, kind: str) -> list[str]:
        """The names under which media of the W&B type `kind` were logged."""
        return [key for key, value in self.summary.items() if isinstance(value, Mapping) and value.get("_type") == kind]


@dataclass(frozen=True)
class GridRuns:
    """Runs of a W&B project: those of the cells of `sweep` and `model`, and the newest report of each folder."""

    entity: str
    project: str
    sweep: str | None
    model: str | None
    cells: Sequence[LoggedRun]
    analyses: Sequence[LoggedRun]
    interventions: Sequence[LoggedRun]

    @classmethod
    def find(cls, entity: str | None, project: str, sweep: str | None, model: str | None) -> "GridRuns":
        """Ask W&B for the runs; `sweep` and `model` None: all.

        Raises:
            Refused: W&B refuses the login, does not show the project, or has no such runs.
        """
        import wandb

        try:
            if not wandb.login(prompt=False):  # Api would prompt and wait
                raise ConnectionError("not logged in")
            api = wandb.Api(timeout=30)
            entity = entity or api.default_entity
        except Exception as error:  # whatever W&B raises
            remedy = "run `wandb login`, and unset WANDB_MODE if it is offline"
            raise Refused("mode", "online", f"W&B lets nobody in ({_line(error)}); {remedy}") from error
        if not entity:
            raise Refused("entity", None, "your account has no default one; name a W&B team or user")

        def runs(**filters: object) -> list[LoggedRun]:
            answer = api.runs(f"{entity}/{project}", filters, order="-created_at", per_page=AT_ONCE, lazy=False)
            return [LoggedRun(run.id, run.name or "", run.config, run.summary_metrics) for run in answer]

        named = {f"config.{key}": value for key, value in (("sweep", sweep), ("model", model)) if value is not None}
        try:
            cells = runs(**{f"config.{IS_CELL}": {"$gte": 1}}, **named)
            reports = [_newest(runs(group=kind)) for kind in ("analysis", "intervention")]
        except Exception as error:
            remedy = "name the project and, by entity, the team or user whose it is"
            found = f"{entity}/{project}"
            raise Refused("project", found, f"W&B does not show it ({_line(error)}); {remedy}") from error
        if not cells:
            asked = {"sweep": sweep, "model": model, "project": project}
            field, value = next((field, value) for field, value in asked.items() if value is not None)
            raise Refused(field, value, f"{entity}/{project} has no such runs; upload offline ones with `wandb sync`")
        return cls(entity, project, sweep, model, cells, *reports)

    def values(self, axis: str) -> list[Any]:
        """The sorted values of a config key over the cells; cells without it are left out."""
        return sorted({run.config[axis] for run in self.cells if run.config.get(axis) is not None})

    def languages(self, metric: str) -> list[str]:
        """Languages for which the cells have `metric`."""
        keys = {key for run in self.cells for key in run.summary if key.startswith(f"{metric}/")}
        return sorted(key.removeprefix(f"{metric}/") for key in keys)


def _newest(runs: Iterable[LoggedRun]) -> list[LoggedRun]:
    """The first run of each name; the name is the folder of a report, and newer runs come first."""
    newest: dict[str, LoggedRun] = {}
    for run in runs:
        newest.setdefault(run.name, run)
    return list(newest.values())


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
