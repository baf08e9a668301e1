"""What a grid takes before anything runs, and the commands that run it.

    python -m bisae plan experiment=paper_grid machine=h100
    python -m bisae plan experiment=laptop_grid write=grid.sh && bash grid.sh

Nothing is read but configs, and of an LM of your own the config.json; nothing is trained, and no network is asked.
"""

from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig

from bisae.cli.command import ends_with_a_line
from bisae.config.folder import CONF
from bisae.config.instantiate import instantiate
from bisae.config.keys import refused_by_key
from bisae.config.train import PlanSettings
from bisae.grid.commands import commands
from bisae.grid.compose import composed_ladders, planned_settings, train_overrides, typed_for_hydra
from bisae.grid.plan_table import show
from bisae.grid.store_choice import StoreChoice
from bisae.runtime.atomic import write_text
from bisae.runtime.library_warnings import silence
from bisae.runtime.subcommands import config_flags


def plan(cfg: Any) -> list[str]:
    """Print the plan; returns its commands."""
    settings = planned_settings(PlanSettings, cfg)
    with refused_by_key(settings):
        return print_plan(settings)


def print_plan(settings: PlanSettings) -> list[str]:
    """Print the plan of checked settings, and write its commands if asked for; returns them."""
    silence()
    ladders, device = composed_ladders(PlanSettings), instantiate(settings.machine, "machine")
    choice = StoreChoice.of(ladders, device, settings.layers_at_once)
    typed = HydraConfig.get().overrides.task
    overrides = [*config_flags("command-line"), *typed_for_hydra(), *train_overrides(typed), *choice.overrides(typed)]
    lines = commands(ladders, choice.members, overrides, choice.devices)
    show(choice, settings.contexts, lines)
    if settings.write is not None:
        script = ["failed=0", *(f'{line} "$@" || failed=1' for line in lines), "exit $failed"]
        write_text(Path(settings.write), "\n".join([*script, ""]))
    return lines


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="plan")
@ends_with_a_line
def main(cfg: Any) -> None:
    plan(cfg)


if __name__ == "__main__":
    main()
