"""Tests of bisae.runtime.subcommands."""

import os
import subprocess
import sys
from pathlib import Path

from bisae.runtime.subcommands import with_this_code

SCRIPT = """
import subprocess
import sys

import hydra

from bisae.runtime.subcommands import run_first


@hydra.main(version_base="1.3", config_path={conf!r}, config_name="analyze")
def main(cfg):
    class Ended:
        returncode = 0

    subprocess.run = lambda command, **_: print(*command[3:]) or Ended
    run_first("train.py", [["checkpoint=0"]], ["runs=mine"])


main()
"""


def test_jobs_run_first_log_as_their_command_does_unless_they_say_otherwise(tmp_path: Path) -> None:
    conf = Path(__file__).parents[2] / "conf"
    script = tmp_path / "command.py"
    script.write_text(SCRIPT.format(conf=str(conf)), encoding="utf-8")
    overrides = ["logger=none", "+logger.entity=us", "seed=1", "hydra.run.dir=out", "hydra.output_subdir=null"]
    command = [sys.executable, str(script), *overrides]
    environment = with_this_code(os.environ)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
    assert done.stdout.split() == ["logger=none", "+logger.entity=us", "checkpoint=0", "runs=mine"]
