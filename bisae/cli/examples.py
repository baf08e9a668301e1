"""The slides' example features in each space of meaning: python -m bisae examples [spaces.use.distance=0.5]

Prints, for each example, its score on the slides, and for each space its score there and which of its words are joined.
✗: not as on the slides.
"""

from typing import Any

import hydra

from bisae.cli.command import command, ends_with_a_line
from bisae.config.examples import ExamplesSettings
from bisae.config.folder import CONF
from bisae.config.instantiate import instantiate
from bisae.config.keys import refused_by_key
from bisae.runtime.console import say, wide
from bisae.runtime.errors import ConfigError


@command(ExamplesSettings)
def examples(settings: ExamplesSettings, cfg: Any) -> None:
    """Print the examples in every space; a space that cannot be used says why, beside the others."""
    from rich.table import Table
    from transformers import AutoTokenizer

    from bisae.features.spaces.examples import EXAMPLES, in_space
    from bisae.features.spaces.lm_space import LMSpace
    from bisae.features.spaces.shipped import VECTORS
    from bisae.features.spaces.space import VectorSpace
    from bisae.runtime.library_warnings import silence

    silence()
    table, refused = Table("slides", box=None, header_style="bold"), []
    columns = [[f"{example.slides:.2f}" for example in EXAMPLES] + [""]]
    for name, node in settings.spaces.items():
        try:
            with refused_by_key(settings, f"spaces.{name}", space=f"spaces.{name}"):
                space = instantiate(node, f"spaces.{name}")
                if not isinstance(space, VectorSpace):
                    raise ConfigError(f"spaces.{name}", node["_target_"], "has no vectors for words")
                shipped = AutoTokenizer.from_pretrained(VECTORS.parent, trust_remote_code=False)
                found = in_space(space, space.checkpoint.load_tokenizer() if isinstance(space, LMSpace) else shipped)
        except ConfigError as error:
            refused.append(str(error))
            continue
        table.add_column(f"  {name}, {node['clustering']} {node['distance']}")
        right = f"{sum(one.right for one in found)} of {len(found)} as on the slides"
        columns.append([f"{' ' if one.right else '✗'} {one.score:.2f}  {one.joined}" for one in found] + [f"  {right}"])
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    wide().print(table)
    for line in refused:
        say(line)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="examples")
@ends_with_a_line
def main(cfg: Any) -> None:
    examples(cfg)


if __name__ == "__main__":
    main()
