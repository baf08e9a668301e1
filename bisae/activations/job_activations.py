"""The two streams of activations that a job reads: for training and for validation."""

import json
import logging
from pathlib import Path
from typing import NamedTuple

from bisae.activations.store import Activations, Request, Store
from bisae.runtime.atomic import write_json
from bisae.runtime.errors import Refused
from bisae.runtime.progress import tokens_bar

log = logging.getLogger(__name__)


class JobActivations(NamedTuple):
    """Opened activations. `asked` is the request, with fewer tokens than at first if the corpus is short."""

    asked: Request
    training: Activations
    validation: Activations

    def close(self, finished: bool) -> None:
        """See `Activations.close`."""
        self.training.close(finished)
        self.validation.close(finished)


def open_activations(store: Store, asked: Request, job: str, checked: bool, folder: Path) -> JobActivations:
    """Open the activations of a job, with progress bars.

    Args:
        job: Name of the files that are kept for this job only.
        checked: True if an earlier run of the job has checked the corpus.
        folder: Folder of the job.

    Raises:
        Refused: Text, disk or memory is too small; raised before any LM runs.
    """
    asked = _limited(store, asked, checked, folder / "tokens.json")
    opened = []
    for (source, tokens, _), name in zip(asked.texts, ("training", "validation"), strict=True):
        with tokens_bar(f"LM activations, {name}") as progress:
            place = f"{job}-{name}", asked.part, progress
            opened.append(store.open(source, asked.layers, tokens, *place, kept=asked.kept, on_gpu=asked.on_gpu))
    return JobActivations(asked, *opened)


def _limited(store: Store, asked: Request, checked: bool, kept: Path) -> Request:
    """Return `asked`, with fewer tokens if the corpus is short; the file `kept` tells other ranks and resumed jobs."""
    if asked.part.rank == 0 and not checked:
        kept.unlink(missing_ok=True)  # of a run that was killed before its first save
        with tokens_bar("corpus") as progress:
            held_tokens = store.check(asked, progress)
        for remark in dict.fromkeys(remark for source, _, _ in asked.texts for remark in source.remarks()):
            log.warning("%s", remark)
        for (source, tokens, field), held in zip(asked.texts, held_tokens, strict=True):
            if held < tokens:
                log.warning("%s=%d: all %d tokens that there are: %s", field, tokens, held, source.ended())
        if held_tokens != [tokens for _, tokens, _ in asked.texts]:
            write_json(kept, held_tokens)
    if not kept.exists():
        return asked
    training, held_out = json.loads(kept.read_bytes())
    if not asked.take_short:
        remedy = f"this job was begun with all {training} tokens there are; short_split=take goes on with them"
        raise Refused("tokens", asked.order.tokens, remedy)
    return asked.limited(training, held_out)
