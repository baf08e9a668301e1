"""Measures bisae on one device: python benchmarks/device.py --minutes 8. Needs only PyTorch, Triton and NumPy.

Stages, the most valuable first, each a process of its own with a box of time: one that hangs or dies ends alone. What a
stage finds is written at once to benchmarks/results/<device>.json, which `bisae plan` reads. Gates come before timings:
one with other gradients, latents or bits is not the quickest. The unit is the encoder's bf16 product of the same shape,
in the same process, right before. At the end the quickest backend of each shape is written where training reads it.

    --smoke           every stage on a CPU, tiny and in one process, in seconds; nothing of it is kept as measured
    --needs           what must be carried to the machine
    --paper-figures   what each stage must compute and move, beside the bars: arithmetic, nothing measured
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# Each with its share of the time. A stage that ends early leaves its time to those after it.
BOXES = {"gates": 0.14, "steps": 0.32, "resume": 0.08, "peers": 0.14, "parts": 0.06, "caching": 0.1}
BOXES |= {"analysis": 0.05, "end_to_end": 0.06, "ranks": 0.05}
SPARE = 5.0  # seconds at the end, to write


def child(stages: Sequence[str], seconds: float, smoke: bool) -> None:
    """Run stages, each row a line of JSON on stdout."""
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "peers")]
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else speaks does so on stderr

    from on_device import STAND_INS
    from on_device.about import about
    from on_device.stages import STAGES
    from on_device.timing import Budget

    ends = time.monotonic() + seconds
    for number, stage in enumerate(stages):
        budget = Budget(time.monotonic() + (ends - time.monotonic()) / (len(stages) - number), smoke)

        def tell(kind: str, content: dict[str, Any], stage: str = stage) -> None:
            out.write(json.dumps({"stage": stage, "kind": kind, **content}) + "\n")

        tell("about", {**about(), "stand_ins": STAND_INS})
        begun = time.monotonic()
        try:
            for row in STAGES[stage](budget):
                tell("row", row)
            tell("end", {"seconds": time.monotonic() - begun, "cut": budget.cut})
        except Exception as error:  # one line in the result; after it a GPU may be unusable, so the process ends
            tell("error", {"error": f"{type(error).__name__}: {error}"})
            if not smoke:
                raise


class Result:
    """The findings, written whenever something is added."""

    def __init__(self, path: Path | None, smoke: bool) -> None:
        self.path = path
        self.content: dict[str, Any] = {"smoke": smoke, "measured": time.strftime("%Y-%m-%d"), "stages": {}}

    def add(self, told: dict[str, Any]) -> None:
        stage, kind = told.pop("stage"), told.pop("kind")
        place = self.content["stages"].setdefault(stage, {"state": "begun", "rows": []})
        if kind == "about":
            self.content.update(told)
            if not self.content["smoke"]:
                self.path = self.path or RESULTS / f"{told['slug']}.json"
        elif kind == "row":
            place["rows"].append(told)
            print(f"{stage:11}", "  ".join(f"{key} {_short(value)}" for key, value in told.items()), flush=True)  # noqa: T201
        else:
            place.update(told, state="done" if kind == "end" else "failed")
        self.write()

    def end(self, stage: str, state: str) -> None:
        place = self.content["stages"].setdefault(stage, {"state": "begun", "rows": []})
        if place["state"] == "begun":
            place["state"] = state
            self.write()

    def write(self) -> None:
        if self.path:
            temporary = self.path.with_suffix(".part")
            temporary.write_text(json.dumps(self.content, indent=1) + "\n")
            temporary.replace(self.path)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run(stages: Sequence[str], seconds: float, smoke: bool, result: Result) -> None:
    """One process for these stages; it is ended where it is not done in `seconds`."""
    asked = [sys.executable, __file__, "--child", *stages, "--seconds", str(seconds), *(["--smoke"] if smoke else [])]
    process = subprocess.Popen(asked, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    lines: queue.Queue[str | None] = queue.Queue()

    def read(source: Any) -> None:
        for line in source:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, args=(process.stdout,), daemon=True).start()
    ends, state = time.monotonic() + seconds, None
    while state is None:
        try:
            line = lines.get(timeout=max(0.0, ends - time.monotonic()))
        except queue.Empty:
            process.kill()
            state = "out of time"
            continue
        if line is None:
            state = "died"
        else:
            result.add(json.loads(line))
    status = process.wait()
    for stage in stages:
        result.end(stage, state if state != "died" else f"died with status {status}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--stages", nargs="+", choices=BOXES, default=list(BOXES))
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/<device>.json; of a smoke run: nowhere")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--needs", action="store_true")
    parser.add_argument("--paper-figures", action="store_true")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return child(given.child, given.seconds, given.smoke)
    if given.needs or given.paper_figures:
        sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "peers")]
        from on_device import figures, needs

        return needs.show(ROOT) if given.needs else figures.show()
    ends = time.monotonic() + 60 * given.minutes - SPARE
    result = Result(given.json, given.smoke)
    if given.smoke:
        run(given.stages, ends - time.monotonic(), True, result)
    else:
        for number, stage in enumerate(given.stages):
            left = ends - time.monotonic()
            after = sum(BOXES[one] for one in given.stages[number:])
            run([stage], max(1.0, left * BOXES[stage] / after), False, result)
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    from on_device import summary

    summary.finish(result.content, ROOT)
    result.write()
    failed = {stage: found for stage, found in result.content["stages"].items() if found["state"] != "done"}
    for stage, found in failed.items():
        print(f"{stage}: {found['state']}; {found.get('error', '')}")  # noqa: T201
    if given.smoke and failed:
        sys.exit(1)
    return None


if __name__ == "__main__":
    main()
