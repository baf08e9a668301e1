"""COMET by the original program `comet-score`, which needs an environment of its own: docs/comet.md."""

import json
import re
import shutil
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import evaluate
import numpy as np

from bisae.metrics.translation import MetricUnavailable
from bisae.metrics.translation.information import info
from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count, Index, Text

COVERED = (  # languages of XLM-R, on which Unbabel's models are based
    "af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fil fr fy ga gd gl gu ha he hi hr hu hy id "
    "is it ja jv ka kk km kn ko ku ky la lo lt lv mg mk ml mn mr ms my nb ne nl nn no om or pa pl ps pt ro ru sa sd si "
    "sk sl so sq sr su sv sw ta te th tr ug uk ur uz vi xh yi zh"
)


class Comet(evaluate.Metric):
    """COMET, about 0 to 1; `score` is the mean of `segments`.

    `compute` raises MetricUnavailable if the program is missing or fails.

    Args:
        program: path of `comet-score`.
        model: a name on the hub, or the path of a `.ckpt`.
        batch: examples scored at a time.
        gpus: how many GPUs; 0: the CPU.
    """

    def __init__(self, program: Text, model: Text, batch: Count, gpus: Index, **options: Any) -> None:
        self._program, self._model, self._batch, self._gpus = program, model, batch, gpus
        super().__init__(**options)

    @property
    def signature(self) -> str:
        return f"model:{self._model}"

    def check(self, languages: Collection[str]) -> None:
        """Refuse languages, translated from or into, that the model was not trained on."""
        foreign = sorted(code for code in languages if code.partition("-")[0] not in COVERED.split())
        if foreign and self._model.startswith("Unbabel/") and shutil.which(Path(self._program).expanduser()):
            remedy = f"was never shown {', '.join(foreign)}; give another model, or leave COMET out"
            raise Refused("model", self._model, remedy)

    def _info(self) -> evaluate.MetricInfo:
        return info(type(self), "sources", "predictions", "references")

    def _compute(
        self,
        sources: Sequence[str],
        predictions: Sequence[str],
        references: Sequence[str],
        language: str | None = None,
        weights: np.ndarray | None = None,
    ) -> dict[str, Any]:
        segments = self._segments({"-s": sources, "-t": predictions, "-r": references})
        scores = {"score": float(segments.mean()), "segments": segments.tolist(), "signature": self.signature}
        if weights is not None:
            scores["resampled"] = (weights @ segments / weights.sum(1)).tolist()
        return scores

    def _segments(self, columns: dict[str, Sequence[str]]) -> np.ndarray:
        program = shutil.which(Path(self._program).expanduser())
        if program is None:
            raise MetricUnavailable(f"program={self._program}: no such program; docs/comet.md says how to get it")
        with TemporaryDirectory() as folder:
            command = [program, "--quiet", "--model", self._model, "--batch_size", str(self._batch)]
            for flag, texts in columns.items():
                lines = [re.sub(r"[\r\n]+", " ", text) + "\n" for text in texts]  # comet-score reads one example a line
                file = Path(folder, flag.strip("-"))
                file.write_text("".join(lines), encoding="utf-8")
                command += [flag, str(file)]
            out = Path(folder, "scores.json")
            command += ["--gpus", str(self._gpus), "--to_json", str(out)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode or not out.is_file():
                last = "".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-1:])
                raise MetricUnavailable(f"program={self._program}: failed with {done.returncode}: {last}")
            (scores,) = json.loads(out.read_text(encoding="utf-8")).values()
        return np.array([segment["COMET"] for segment in scores])
