"""The learning rate of each model and layer, found by a search: python -m bisae rates [runs=...] [output=...]"""

import logging
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf

from bisae.cells.find import find_cells
from bisae.cli.command import command, ends_with_a_line
from bisae.config.folder import CONF
from bisae.config.train import RatesSettings
from bisae.grid.rates import best_rates
from bisae.runtime.atomic import atomic_file

log = logging.getLogger("bisae.grid.rates")


@command(RatesSettings)
def rates(settings: RatesSettings, cfg: Any) -> None:
    """Write the best learning rate of each model and layer of a search."""
    best = best_rates(find_cells(settings.runs, Path("runs")))
    with atomic_file(Path(settings.output)) as temporary:
        OmegaConf.save(best, temporary)
    log.info("%s\n%s", settings.output, OmegaConf.to_yaml(best))


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="rates")
@ends_with_a_line
def main(cfg: Any) -> None:
    rates(cfg)


if __name__ == "__main__":
    main()
