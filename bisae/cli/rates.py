"""The learning rate of each model and layer, found by a search: python -m bisae rates [runs=...] [output=...]"""

import logging
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf

from bisae.cells.find import find_cells
from bisae.config.folder import CONF
from bisae.grid.rates import best_rates
from bisae.runtime.atomic import atomic_file
from bisae.runtime.errors import ConfigError

log = logging.getLogger("bisae.grid.rates")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="rates")
def main(cfg: Any) -> None:
    try:
        best = best_rates(find_cells(cfg.runs, Path("runs")))
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from None
    with atomic_file(Path(cfg.output)) as temporary:
        OmegaConf.save(best, temporary)
    log.info("%s\n%s", cfg.output, OmegaConf.to_yaml(best))


if __name__ == "__main__":
    main()
