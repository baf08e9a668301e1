"""An edited LM as a model of EleutherAI's lm-evaluation-harness: python -m bisae.intervention.harness --model bisae ...

All options are those of `lm_eval`; `--model_args` are the arguments of `bisae.intervention.edited_lm.EditedLM.of`:
--model_args cell=FOLDER,kind=ja,mode=ablate. kind=none is the plain LM. Needs `pip install 'bisae[harness]'`.
"""

from contextlib import ExitStack
from typing import Any

from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from bisae.intervention.edited_lm import EditedLM
from bisae.intervention.kinds import NONE


@register_model("bisae")
class EditedModel(HFLM):
    """`HFLM` over an LM that stays edited.

    Args:
        cell, kind, mode, coefficient, step, norm, cache, dtype, device: of `EditedLM.of`.
        other: of `HFLM`, as batch_size and max_length. BOS stands before every text, which transformers' own tokenizer
            reads, as for any model of the harness.
    """

    def __init__(
        self,
        cell: str,
        kind: str | int | None,
        mode: str = "ablate",
        coefficient: float | int = 1.0,
        step: int | str | None = None,
        norm: str = "donor",
        cache: str = "cache",
        dtype: str = "float32",
        device: str | None = None,
        **other: Any,
    ) -> None:
        # lm_eval reads `none` as None in some of its ways.
        own = "auto" if device in (None, "cuda:0") else device  # lm_eval's own default is cuda:0 without a GPU too
        edited = EditedLM.of(cell, NONE if kind is None else kind, mode, coefficient, step, norm, cache, dtype, own)
        super().__init__(pretrained=edited.lm, tokenizer=edited.tokenizer.written, **{"add_bos_token": True, **other})
        self._edit = ExitStack()
        self._edit.enter_context(edited.edited())


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
