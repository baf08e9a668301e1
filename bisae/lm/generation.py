"""How an LM writes: greedily, whatever the files beside its weights say of repetition, length, beams or sampling."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

# Of a generation_config.json: what greedy search up to `max_new_tokens` has no use for.
WITHOUT_EFFECT = {
    "_from_model_config",
    "bos_token_id",
    "do_sample",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "num_beams",
    "pad_token_id",
    "temperature",
    "top_k",
    "top_p",
    "transformers_version",
    "use_cache",
}


def forget_folder(lm: Any) -> None:
    """Take from a transformers LM what its folder says of generation: `generate` fills in from there whatever the
    config it is given leaves open, and a folder may bring a `generate` of its own."""
    lm.generation_config = GenerationConfig()
    vars(lm).pop("generate", None)


def greedy(tokenizer: Any, max_new_tokens: int, stop: str | None = None) -> GenerationConfig:
    """For `lm.generate`: the likeliest token each time, up to the tokenizer's end-of-sequence token, if it has one, at
    most `max_new_tokens`, or to the text `stop`; for that `generate` needs the `tokenizer` too."""
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
        stop_strings=None if stop is None else [stop],
    )


def written(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of generated tokens up to the end-of-sequence token, without BOS and padding. Nothing else is dropped:
    tokens of bytes or of markup are text even where a tokenizer calls them special."""
    ids = list(ids)
    if tokenizer.eos_token_id in ids:
        ids = ids[: ids.index(tokenizer.eos_token_id)]
    dropped = (tokenizer.bos_token_id, tokenizer.pad_token_id)
    kept = [one for one in ids if one not in dropped]
    text: str = tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def generation_identity(folders: Iterable[Path], tokenizer: Any) -> Mapping[str, Any]:
    """What identifies answers beside LM and prompts. Empty where the LMs' own files never said otherwise, so that
    answers of before bisae had a generation config of its own are still the answers."""
    ends = tokenizer.eos_token_id
    dropped = {tokenizer.bos_token_id, ends, tokenizer.pad_token_id}
    same = set(tokenizer.all_special_ids) <= dropped | {tokenizer.unk_token_id}
    same &= not getattr(tokenizer, "clean_up_tokenization_spaces", False)
    if same and all(_is_greedy(folder, ends) for folder in folders):
        return {}
    return {"generation": {"do_sample": False, "eos": ends, "dropped": sorted(dropped - {None})}}


def _is_greedy(folder: Path, ends: int | None) -> bool:
    try:
        try:
            found = GenerationConfig.from_pretrained(folder)
        except OSError:  # none, or one that cannot be read: older LMs say it in their config
            found = GenerationConfig.from_pretrained(folder, config_file_name="config.json", _from_model_config=True)
    except (OSError, TypeError, ValueError):
        return False
    eos = found.eos_token_id if isinstance(found.eos_token_id, list) else [found.eos_token_id]
    return {*found.to_diff_dict()} <= WITHOUT_EFFECT and eos == [ends]
