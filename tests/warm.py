"""Commands forked from a process that has imported the libraries: most of a command's time in tests is imports.

Not for tests of what a command imports, and not for what starts another way than a script or `-m` (these start afresh).
Lightning starts the further ranks of a job as processes of its own here too.
"""

import atexit
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PRINTED = ("out", "err")
# Read when libraries are imported: a command that has others starts afresh.
READ_AT_IMPORT = ("HF_", "TORCH", "OMP_", "TRANSFORMERS", "SPARSIFY", "CUDA")


def run(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str] | None":
    """What `python *arguments` does in `folder`; None if it has to start afresh."""
    afresh = arguments[1] == "pytest" if arguments[0] == "-m" else arguments[0].startswith("-")
    if afresh or not hasattr(os, "fork"):
        return None
    server, started = _server()
    if read_at_import(environment) != started:
        return None
    assert server.stdin and server.stdout
    with tempfile.TemporaryDirectory() as place:
        request = [list(arguments), str(folder), dict(environment), place]
        print(json.dumps(request), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        out, err = ((Path(place) / name).read_text(encoding="utf-8") for name in PRINTED)
    return subprocess.CompletedProcess(list(arguments), status, out, err)


def read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key.startswith(READ_AT_IMPORT)}


@cache
def _server() -> "tuple[subprocess.Popen[str], dict[str, str]]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command, pipe = [sys.executable, "-m", "tests.warm"], subprocess.PIPE
    server = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
    )
    atexit.register(server.communicate)
    return server, read_at_import(environment)


def serve() -> list[Any] | None:
    """Answer requests with the status of a forked process each; in such a process, return its request."""
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            answers.close()
            return list(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
    return None


def become(arguments: list[str], folder: str, environment: dict[str, str], place: str) -> None:
    """Be the process of a command that was started as `python *arguments`; `place` gets what it prints."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in enumerate(PRINTED, start=1):
        os.dup2(os.open(Path(place) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if arguments[0] == "-m":
        sys.path[0], sys.argv = folder, arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = str(Path(arguments[0]).parent), arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    import bisae.analysis.work
    import bisae.cli.analyze
    import bisae.cli.intervene
    import bisae.cli.train
    import bisae.intervention.table
    import bisae.lm.lm_pass
    import bisae.report.report
    import bisae.sae.own
    import bisae.training.fit
    import bisae.training.results
    import bisae.training.trainer  # noqa: F401

    if (request := serve()) is not None:
        become(*request)
