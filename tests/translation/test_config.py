import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from bisae.config.instantiate import instantiate
from bisae.translation.prompts import Prompt


@pytest.mark.parametrize("name", ["embedded", "jsonl", "llm_jp_eval"])
def test_every_choice_of_translation_gives_tasks_a_prompt_and_metrics(
    name: str, config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"a": "x", "b": "y"}\n' * 5)
    more = {
        "embedded": [],
        "jsonl": [f"translation.tasks.file={tmp_path}/pairs.jsonl", "translation.tasks.keys={fr:a,de:b}"],
        "llm_jp_eval": [f"translation.tasks.folder={tmp_path}"],
    }[name]
    chosen = config(f"+translation={name}", *more).translation
    if name == "llm_jp_eval":
        samples = [{"input": "x", "output": "y"}] * 100
        for split in ("train", "test"):
            (tmp_path / split).mkdir()
            for task in chosen.tasks.directions:
                content = json.dumps({"instruction": "i", "output_length": 9, "samples": samples})
                (tmp_path / split / f"{task}.json").write_text(content)
    tasks = instantiate(chosen.tasks).read()
    assert len(tasks) == {"embedded": 2, "jsonl": 2, "llm_jp_eval": 4}[name]
    prompt = instantiate(chosen.prompt)
    assert isinstance(prompt, Prompt) and tasks[0].examples[0].source in prompt.text(
        tasks[0], tasks[0].examples[0].source
    )
    assert [instantiate(metric).name for metric in chosen.metrics.values()] == ["bleu", "chrf", "comet"]
