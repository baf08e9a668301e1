import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

import bisae.corpus.hub
from bisae.config.instantiate import instantiate
from bisae.corpus.hub import HubCorpus
from bisae.runtime.errors import Refused

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FRENCH = {"path": "owner/articles", "name": "fr", "split": "train", "revision": COMMIT}


def hub(**changes: Any) -> HubCorpus:
    arguments: dict[str, Any] = {"name": "hf", "field": "text", "seed": 0, "buffer": 50, "splits": {"sae": 0.5}}
    sources = {"fr": FRENCH, "de": FRENCH | {"name": None}}
    return HubCorpus(**{**arguments, "sources": sources, **changes})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """A hub that answers every request with 200 local records; what it was asked for."""
    records = [json.dumps({"id": n, "text": f"Le chat noir dort {n} fois."}) for n in range(200)]
    (tmp_path / "fr.jsonl").write_text("\n".join(records))
    asked, load_dataset = [], datasets.load_dataset

    def local(streaming: bool, cache_dir: str, **source: Any) -> Any:
        assert not any(Path(cache_dir).iterdir())  # what the user's cache holds may be another commit
        asked.append(source)
        return load_dataset("json", data_files=str(tmp_path / "fr.jsonl"), split="train", streaming=streaming)

    monkeypatch.setattr(bisae.corpus.hub, "reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", local)
    return asked


def test_documents_are_those_of_the_commit(asked: list[dict[str, Any]]) -> None:
    corpus = hub()
    documents = list(corpus.documents("sae", 0))
    assert 60 < len(documents) < 140 and all("chat" in d.text for d in documents)
    assert documents == list(corpus.documents("sae", 0)) and asked == [FRENCH, FRENCH]
    with pytest.raises(Refused, match=r"^field=body: no such text in record 0 of de, which has \['id', 'text"):
        next(hub(field="body").documents("sae", 1))


def test_the_checksum_is_of_the_sources_and_needs_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bisae.corpus.hub, "reachable", lambda: pytest.fail("the hub was asked"))
    sources = {"fr": FRENCH, "de": FRENCH | {"name": None, "revision": COMMIT[::-1]}}
    assert hub().languages == ("fr", "de")
    turned = {language: dict(reversed(list(source.items()))) for language, source in hub().sources.items()}
    assert hub().checksum("sae") == hub(sources=turned).checksum("sae") != hub(sources=sources).checksum("sae")


def test_without_the_hub_reading_is_refused_with_the_other_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match=r"^sources={de: owner/articles}: the hub does not answer; .*corpus=jsonl"):
        hub().documents("sae", 1)
    monkeypatch.setattr(bisae.corpus.hub, "reachable", lambda: True)  # but for `datasets` by HF_DATASETS_OFFLINE
    with pytest.raises(Refused, match=r"^sources={fr: owner/articles}: .*OfflineMode.*corpus=jsonl"):
        hub().documents("sae", 0)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"revision": "main"}, r"^sources={fr: owner/articles}: the revision main must be a commit"),
        ({"revision": COMMIT[:7]}, r"^sources={fr: owner/articles}: the revision 0123456 must be a commit"),
        ({"path": "json"}, r"^sources={fr: json}: the path must be owner/name"),
        ({"data_dir": "x"}, r"^sources={fr: .*}: needs path, name"),
    ],
)
def test_sources_that_do_not_name_one_commit_of_a_dataset_are_refused(change: dict[str, str], error: str) -> None:
    with pytest.raises(Refused, match=error):
        hub(sources={"fr": FRENCH | change})


def test_a_local_folder_of_the_name_is_not_taken_for_the_dataset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "owner" / "articles").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match="^sources={fr: owner/articles}: the path must be owner/name on the hub, and no"):
        hub()


def test_wikipedia_can_be_had_in_other_languages(config: Callable[..., Any], asked: list[dict[str, Any]]) -> None:
    wikipedia = instantiate(config("corpus=wikipedia").corpus)
    assert wikipedia.languages == ("en", "ja") and next(wikipedia.documents("analysis", 1)).text.startswith("Le chat")
    german = "+corpus.sources.de={path:wikimedia/wikipedia,name:20231101.de,split:train,revision:%s}"
    pair = config("corpus=wikipedia", "~corpus.sources.ja", german % "${corpus.sources.en.revision}").corpus
    next(instantiate(pair).documents("sae", 1))
    assert [source["name"] for source in asked] == ["20231101.ja", "20231101.de"]
    assert asked[0]["revision"] == asked[1]["revision"] == wikipedia.sources["en"]["revision"]
