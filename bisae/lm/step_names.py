"""Names of checkpoints by training step, and the steps that exist."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bisae.runtime.errors import Refused

STEP = re.compile(r"%0?\d*d")  # printf's, since braces mean something else on Hydra's command line
BILLIONS = "%b"


def named(template: str, step: int, step_unit: int, tokens_per_step: int | None) -> str:
    """Return the path or revision of a step: `%d` or `%07d` becomes step / step_unit, `%b` the billions of tokens seen.

    Billions are rounded up, as on the hub. Raises Refused (`tokens_per_step`) if `%b` needs it and it is None.
    """
    if BILLIONS in template:
        if tokens_per_step is None:
            raise Refused("tokens_per_step", None, f"give it: {template} holds {BILLIONS}, tokens seen")
        template = template.replace(BILLIONS, str(-(-step * tokens_per_step // 10**9)))
    return STEP.sub(lambda place: place[0] % (step // step_unit), template)


def check_listed(step: int, steps: Sequence[Any] | None) -> None:
    """Refuse a step that is not in `steps`: numbers and [first, last, every], where last is included."""
    try:
        ranges = [[entry, entry, 1] if isinstance(entry, int) else entry for entry in steps or []]
        known = steps is None or any(step in range(first, last + 1, every) for first, last, every in ranges)
    except (TypeError, ValueError):
        raise Refused("steps", steps, "must be a list of steps and of [first, last, every]") from None
    if not known:
        raise Refused("checkpoint", step, f"is none of steps={steps}; null asks for any step")


def check_step(folder: Path, step: int, in_names: int) -> None:
    """Refuse a folder that holds another step by its name, recipe.json or trainer_state.json."""
    steps: dict[str, int] = {}
    named = [int(number) for number in re.findall(r"(?:iter|step|checkpoint)[_-]?(\d+)", folder.resolve().name)]
    if named and not {step, in_names} & set(named):
        steps["its name"] = named[-1]
    for file, key in (("recipe.json", "step"), ("trainer_state.json", "global_step")):
        if (folder / file).is_file():
            value = json.loads((folder / file).read_text(encoding="utf-8")).get(key)
            if isinstance(value, int):
                steps[file] = value
    for place, value in steps.items():
        if value != step:
            raise Refused("checkpoint", step, f"{folder} holds step {value} ({place})")
