"""How far a grid is: python -m bisae status experiment=laptop_grid [html=status.html], with the grid's other overrides.

Done, running, failed with the last error, or missing; and when the rest will be done. Reads only.
"""

from pathlib import Path
from typing import Any

import hydra
from rich.console import Console

from bisae.config.folder import CONF
from bisae.grid.compose import composed_ladders
from bisae.grid.progress import GridProgress, progress_of
from bisae.grid.progress_page import html, text
from bisae.runtime.atomic import atomic_file
from bisae.runtime.errors import ConfigError
from bisae.runtime.library_warnings import silence


def status(cfg: Any) -> GridProgress:
    """Print it, and write the page if asked for."""
    silence()
    progress = progress_of(composed_ladders(), Path(cfg.runs))
    Console(highlight=False).print(text(progress), markup=False, emoji=False, soft_wrap=True)
    if cfg.html is not None:
        with atomic_file(Path(cfg.html)) as temporary:
            temporary.write_text(html(progress, str(cfg.runs)), encoding="utf-8")
    return progress


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="status")
def main(cfg: Any) -> None:
    try:
        status(cfg)
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
