"""What a grid takes before anything runs, and the commands that run it.

    python -m bisae plan experiment=paper_grid machine=h100
    python -m bisae plan experiment=laptop_grid write=grid.sh && bash grid.sh

Nothing is read but configs, and of an LM of your own the config.json; nothing is trained, and no network is asked.
"""

from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig

from bisae.config.folder import CONF
from bisae.config.instantiate import instantiate
from bisae.grid.compose import composed_ladders, train_overrides, typed_for_hydra
from bisae.grid.ladders import commands
from bisae.grid.plan_table import show
from bisae.grid.store_choice import StoreChoice
from bisae.runtime.atomic import atomic_file
from bisae.runtime.errors import ConfigError
from bisae.runtime.library_warnings import silence
from bisae.runtime.subcommands import config_flags


def plan(cfg: Any) -> list[str]:
    """Print the plan; returns its commands."""
    for key in ("layers_at_once", "contexts"):
        if cfg[key] is not None and (type(cfg[key]) is not int or cfg[key] < 1):
            raise ConfigError(key, cfg[key], "must be a whole number, at least 1")
    silence()
    ladders, device = composed_ladders(), instantiate(cfg.machine)
    choice = StoreChoice.of(ladders, device, cfg.layers_at_once)
    typed = HydraConfig.get().overrides.task
    overrides = [*config_flags("command-line"), *typed_for_hydra(), *train_overrides(typed), *choice.overrides(typed)]
    lines = commands(ladders, choice.members, overrides)
    show(choice, cfg.contexts, lines)
    if cfg.write is not None:
        with atomic_file(Path(cfg.write)) as temporary:
            script = ["failed=0", *(f'{line} "$@" || failed=1' for line in lines), "exit $failed"]
            temporary.write_text("\n".join([*script, ""]), encoding="utf-8")
    return lines


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="plan")
def main(cfg: Any) -> None:
    try:
        plan(cfg)
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
