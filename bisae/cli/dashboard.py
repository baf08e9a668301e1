"""A W&B report of a grid: python -m bisae dashboard [only.sweep=<WANDB_RUN_GROUP>] [only.model=<name>] [draft=true].

What the grid is, metrics during training, final values over LM training, settings against FVU, and what analyze.py and
intervene.py have logged. Every call writes a new report and prints its URL.
"""

import logging
import re
from importlib.util import find_spec
from typing import Any

import hydra
from omegaconf import OmegaConf

from bisae.config.folder import CONF
from bisae.runtime.errors import ConfigError
from bisae.runtime.library_warnings import silence
from bisae.runtime.values import check_texts

log = logging.getLogger("bisae.dashboard")


def dashboard(cfg: Any) -> str:
    """Write the report; returns its URL."""
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(key, "???", "give a value")
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    logger = settings["logger"]
    if logger["mode"] != "online":
        raise ConfigError("logger.mode", logger["mode"], "a report is written online: use logger=wandb_online")
    if find_spec("wandb_workspaces") is None:
        raise ConfigError("logger.mode", "online", "a report needs wandb-workspaces: pip install -e '.[report]'")
    check_texts("logger.project", [logger["project"]])
    for key, value in settings["only"].items():
        if value is not None and (not isinstance(value, str) or not value or set(value) & set("=<>")):
            raise ConfigError(f"only.{key}", value, "must be null or text without =, < and >")
    if not isinstance(settings["title"], str) or not re.fullmatch(r"[\w .,:()+-]{1,128}", settings["title"]):
        raise ConfigError("title", settings["title"], "must be at most 128 letters, digits, spaces or .,:()+-")
    if not isinstance(settings["draft"], bool):
        raise ConfigError("draft", settings["draft"], "must be true or false")
    silence()

    from bisae.grid.dashboard_runs import GridRuns

    grid = GridRuns.find(logger["entity"], logger["project"], **settings["only"])

    import wandb_workspaces.reports.v2 as wr

    from bisae.grid.dashboard_blocks import blocks

    report = wr.Report(grid.project, grid.entity, settings["title"], blocks=blocks(grid), width="fluid")
    try:
        report.save(draft=settings["draft"])
    except Exception as error:  # whatever W&B raises
        found, said = f"{grid.entity}/{grid.project}", str(error).partition("\n")[0]
        raise ConfigError("logger.project", found, f"W&B does not take the report: {said}") from error
    url: str = report.url  # asks W&B
    log.info("%s", url)
    return url


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="dashboard")
def main(cfg: Any) -> None:
    try:
        dashboard(cfg)
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
