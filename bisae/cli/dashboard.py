"""A W&B report of a grid: python -m bisae dashboard [only.sweep=<WANDB_RUN_GROUP>] [only.model=<name>] [draft=true].

What the grid is, metrics during training, final values over LM training, settings against FVU, and what analyze.py and
intervene.py have logged. Every call writes a new report and prints its URL.
"""

import logging
from importlib.util import find_spec
from typing import Any

import hydra

from bisae.cli.command import command, ends_with_a_line
from bisae.config.exchange import DashboardSettings
from bisae.config.folder import CONF
from bisae.runtime.errors import ConfigError
from bisae.runtime.library_warnings import silence

log = logging.getLogger("bisae.dashboard")


@command(DashboardSettings)
def dashboard(settings: DashboardSettings, cfg: Any) -> str:
    """Write the report; returns its URL."""
    logger = settings.logger
    if logger["mode"] != "online":
        raise ConfigError("logger.mode", logger["mode"], "a report is written online: use logger=wandb_online")
    if find_spec("wandb_workspaces") is None:
        raise ConfigError("logger.mode", "online", "a report needs wandb-workspaces: pip install -e '.[report]'")
    silence()

    from bisae.grid.dashboard_runs import GridRuns

    grid = GridRuns.find(logger["entity"], logger["project"], **settings.only.model_dump())

    import wandb_workspaces.reports.v2 as wr

    from bisae.grid.dashboard_blocks import blocks

    report = wr.Report(grid.project, grid.entity, settings.title, blocks=blocks(grid), width="fluid")
    try:
        report.save(draft=settings.draft)
    except Exception as error:  # whatever W&B raises
        found, said = f"{grid.entity}/{grid.project}", str(error).partition("\n")[0]
        raise ConfigError("logger.project", found, f"W&B does not take the report: {said}") from error
    url: str = report.url  # asks W&B
    log.info("%s", url)
    return url


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="dashboard")
@ends_with_a_line
def main(cfg: Any) -> None:
    dashboard(cfg)


if __name__ == "__main__":
    main()
