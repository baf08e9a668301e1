"""How far a grid is: python -m bisae status experiment=laptop_grid [html=status.html], with the grid's other overrides.

Done, running, failed with the last error, or missing; and when the rest will be done. Reads only.
"""

from pathlib import Path
from typing import Any

import hydra

from bisae.cli.command import ends_with_a_line
from bisae.config.folder import CONF
from bisae.config.keys import refused_by_key
from bisae.config.train import StatusSettings
from bisae.grid.compose import composed_ladders, planned_settings
from bisae.grid.progress import GridProgress, progress_of
from bisae.grid.progress_page import html, text
from bisae.runtime.atomic import write_text
from bisae.runtime.console import say
from bisae.runtime.library_warnings import silence


def status(cfg: Any) -> GridProgress:
    """Print it, and write the page if asked for."""
    settings = planned_settings(StatusSettings, cfg)
    silence()
    with refused_by_key(settings):
        progress = progress_of(composed_ladders(StatusSettings), Path(settings.runs))
    say(text(progress))
    if settings.html is not None:
        write_text(Path(settings.html), html(progress, settings.runs))
    return progress


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="status")
@ends_with_a_line
def main(cfg: Any) -> None:
    status(cfg)


if __name__ == "__main__":
    main()
