"""The commands of bisae: python -m bisae <command> [key=value ...]

Each is a module of `bisae.cli` and starts as a process of its own, since the ranks of a job start by running its
command line again.
"""

import os
import sys

from bisae.runtime.subcommands import CLI, SAFE_PATH, with_this_code

COMMANDS = {
    "train": "the SAEs of one LM checkpoint",
    "analyze": "what the features of trained cells are",
    "evaluate": "cells scored on any text and checkpoint, without training",
    "examples": "the slides' example features in each space of meaning",
    "intervene": "features put into, taken out of or scaled in an LM",
    "plan": "what a grid takes, and the commands that run it",
    "rates": "the best learning rates of a search",
    "status": "how far a grid is",
    "dashboard": "a W&B report of a grid",
    "convert": "SAEs of other libraries as cells, and the other way",
    "pretrain": "a ladder of tiny bilingual LMs",
}


def main() -> None:
    """Run the command that the first argument names; SystemExit with the list of commands if there is none."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command not in COMMANDS:
        lines = [f"  {name:<10} {about}" for name, about in COMMANDS.items()]
        usage = "python -m bisae <command> [key=value ...]; --help after a command lists its keys"
        raise SystemExit("\n".join([usage, *lines]))
    script = str(CLI / f"{command}.py")
    os.execve(sys.executable, [sys.executable, *SAFE_PATH, script, *sys.argv[2:]], with_this_code(os.environ))


if __name__ == "__main__":
    main()
