"""Puts this folder into the wheel, as bisae/conf; a checkout and an editable install read it where it is."""

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py


class WithConf(build_py):
    """`build_py` of the wheel."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "bisae", "conf")
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree("conf", target, ignore=shutil.ignore_patterns("*.py", "__pycache__", "local"))
