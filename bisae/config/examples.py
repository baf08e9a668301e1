"""The settings of `examples`."""

from bisae.config.settings import Command, Object
from bisae.runtime.ranges import Text


class ExamplesSettings(Command):
    spaces: dict[str, Object]
    cache: Text
