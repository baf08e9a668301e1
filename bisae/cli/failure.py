"""What a failed job leaves: its config and its log, in a folder that stays until the user deletes it."""

import logging
import shlex
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from bisae.runtime.naming import name_of

KEPT = 10_000  # lines of a job's log


class JobLog(logging.Handler):
    """Keeps what the job logs, for `leave_failure`."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: deque[str] = deque([shlex.join(sys.argv)], maxlen=KEPT)
        self.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def leave_failure(cfg: Any, lines: Iterable[str]) -> str:
    """Write `failed/<time>-<hash of the config>/` below the results; returns where it is, in words.

    Empty if nothing can be written: then that is what has failed, and the error says it.
    """
    with suppress(Exception):
        config: Any = OmegaConf.to_container(cfg, resolve=True)
        name = f"{datetime.now():%Y%m%d-%H%M%S}-{name_of(config)}"
        folder = Path(HydraConfig.get().run.dir) / "failed" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True), encoding="utf-8")
        (folder / "log").write_text("\n".join([*lines, ""]), encoding="utf-8")
        return f"config and log: {folder}"
    return ""
