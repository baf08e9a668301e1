import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bisae.config.instantiate import instantiate
from bisae.corpus.corpus import Corpus
from bisae.corpus.jsonl import JsonlCorpus
from bisae.corpus.tokens import balanced
from bisae.runtime.errors import Refused

WORDS = {
    "fr": "le chat noir dort sous un arbre et la pluie tombe près de nous",
    "de": "der Hund läuft über die Straße und ein Kind ruft laut nach ihm",
    "sv": "en gammal båt låg vid ån när vi kom hem från skogen",
}


def write(path: Path, language: str, count: int, longest: int = 30) -> None:
    """`count` made-up texts of up to `longest` words; other fields differ from record to record."""
    rng, words = random.Random(path.name), WORDS[language].split()
    lines = [
        json.dumps({"id": n if n % 2 else str(n), "text": " ".join(rng.choices(words, k=rng.randint(1, longest)))})
        for n in range(count)
    ]
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.write("\n".join(lines) + "\n\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """400 French records in two files and a packed one, 300 German, 100 long Swedish."""
    for name, count in (("b.jsonl", 200), ("a.jsonl", 100), ("c.jsonl.gz", 100)):
        write(tmp_path / "fr" / name, "fr", count)
    write(tmp_path / "de.jsonl.gz", "de", 300)
    write(tmp_path / "sv.jsonl", "sv", 100, longest=100)
    return tmp_path


def jsonl(files: dict[str, Any], **changes: Any) -> JsonlCorpus:
    arguments: dict[str, Any] = {"name": "mine", "field": "text", "seed": 0, "buffer": 50, "splits": {"sae": 1.0}}
    return JsonlCorpus(**{**arguments, "files": files, **changes})


def of(folder: Path) -> JsonlCorpus:
    return jsonl({"fr": f"{folder}/fr/*", "de": [f"{folder}/de.jsonl.gz"], "sv": f"{folder}/sv.jsonl"})


def test_languages_and_files_are_as_named_on_the_command_line(config: Callable[..., Any], folder: Path) -> None:
    files = f"{{sv:{folder}/sv.jsonl,fr:[{folder}/fr/b.jsonl,{folder}/fr/a*]}}"
    corpus: JsonlCorpus = instantiate(config("corpus=jsonl", f"corpus.files={files}").corpus)
    assert isinstance(corpus, Corpus) and corpus.languages == ("sv", "fr")
    for language, paths in enumerate((["sv.jsonl"], ["fr/a.jsonl", "fr/b.jsonl"])):
        lines = [line for path in paths for line in (folder / path).read_text().splitlines() if line]
        found = [d.text for split in corpus.splits for d in corpus.documents(split, language)]
        assert sorted(found) == sorted(json.loads(line)["text"] for line in lines)


def test_one_language_is_a_corpus_and_all_its_records_are_read_once(folder: Path) -> None:
    corpus = jsonl({"fr": [f"{folder}/fr/b.jsonl", f"{folder}/fr/*"]})
    documents = list(corpus.documents("sae", 0))
    assert corpus.languages == ("fr",) and [d.number for d in documents] == list(range(400))


def test_the_checksum_is_of_the_content_of_the_files_in_their_order(folder: Path, tmp_path: Path) -> None:
    before = of(folder)
    checksum = before.checksum("sae")
    moved = folder.rename(tmp_path.parent / f"{tmp_path.name}-moved")
    (moved / "de.jsonl.gz").rename(moved / "allemand.jsonl.gz")
    after = jsonl({"fr": f"{moved}/fr/*", "de": f"{moved}/a*", "sv": f"{moved}/sv.jsonl"})
    assert after.checksum("sae") == checksum == before.checksum("sae")
    (moved / "fr" / "a.jsonl").rename(moved / "fr" / "z.jsonl")
    assert jsonl(dict(after.files)).checksum("sae") != checksum
    (moved / "fr" / "z.jsonl").rename(moved / "fr" / "a.jsonl")
    assert jsonl(dict(after.files)).checksum("sae") == checksum
    with (moved / "sv.jsonl").open("a") as file:
        file.write('{"text": "hej"}\n')
    assert jsonl(dict(after.files)).checksum("sae") != checksum


def test_three_languages_are_balanced_by_tokens(folder: Path) -> None:
    def tokenizer(texts: list[str], add_special_tokens: bool) -> Any:
        return SimpleNamespace(input_ids=[list(range(len(text.split()))) for text in texts])

    counts = [0, 0, 0]
    for sequence in balanced(of(folder), "sae", tokenizer, 64, 1):
        counts[sequence.language] += len(sequence.ids)
    assert min(counts) > 3000 and max(counts) - min(counts) <= 64


@pytest.mark.parametrize("missing", ["fr/*.json", "en.jsonl", "no_folder/"])
def test_a_path_or_glob_without_files_is_refused(folder: Path, missing: str) -> None:
    with pytest.raises(Refused, match=r"^files=.*: no such file"):
        jsonl({"de": f"{folder}/de.jsonl.gz", "fr": [f"{folder}/fr/*.jsonl", f"{folder}/{missing}"]})


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"body": "x"}', r"^field=text: no such text in .*bad.jsonl:1, which has \['body'\]"),
        (b'{"text": null}', r"^field=text: is null in .*bad.jsonl:1, no text; skip_bad=true"),
        (b'{"text": ["a"]}', r"^field=text: is a list in .*bad.jsonl:1, no text"),
        (b"[1, 2]", r"^field=text: no such text in .*bad.jsonl:1, which is a list, no object"),
        (b"3", r"^field=text: no such text in .*bad.jsonl:1, which is a number, no object"),
        (
            b"[" * 100_000,
            r"^files=.*bad.jsonl:1: cannot be read as JSON: .*recursion.*what can be read: JSON Lines",
        ),
        (b'{"text": %s}' % (b"1" * 5000), r"^files=.*bad.jsonl:1: cannot be read as JSON: Exceeds the limit"),
        (b"no JSON", r"^files=.*bad.jsonl:1: cannot be read as JSON: Expecting value"),
        (b'{"text": "\xff\xff"}', r"^files=.*bad.jsonl:1: cannot be read as JSON: .*decode"),
        (b'{"text": "\\ud800"}', r"^files=.*bad.jsonl:1: cannot be read as JSON: .*surrogate"),
    ],
)
def test_a_bad_first_record_is_refused_at_once_by_file(tmp_path: Path, line: bytes, error: str) -> None:
    (tmp_path / "bad.jsonl").write_bytes(line + b"\n")
    with pytest.raises(Refused, match=error):
        jsonl({"fr": f"{tmp_path}/bad.jsonl"})


def test_a_bad_record_further_on_is_named_by_file_and_line(folder: Path) -> None:
    with (folder / "sv.jsonl").open("a") as file:
        file.write('{"text": "hej"}\n{"text": 1}\n')
    with pytest.raises(Refused, match=r"^field=text: is a number in .*sv.jsonl:103, no text"):
        list(of(folder).documents("sae", 2))


def test_a_file_that_is_not_packed_as_named_cut_off_or_damaged_is_refused(folder: Path) -> None:
    (folder / "sv.jsonl").rename(folder / "plain.gz")
    with pytest.raises(Refused, match=r"^files=.*plain.gz:0: cannot be read as JSON: Not a gzip"):
        jsonl({"sv": f"{folder}/plain.gz"})
    packed = (folder / "de.jsonl.gz").read_bytes()
    damaged = packed[:4000] + b"\xff" * 100 + packed[4100:]
    for content, error in ((packed[:-500], "ended"), (damaged, "while decompressing")):
        (folder / "bad.gz").write_bytes(content)
        with pytest.raises(Refused, match=rf"^files=.*bad.gz:\d+: cannot be read as JSON: .*{error}"):
            list(jsonl({"de": f"{folder}/bad.gz"}).documents("sae", 0))


def test_the_order_does_not_depend_on_where_the_files_are(folder: Path, tmp_path: Path) -> None:
    before = list(of(folder).documents("sae", 0))
    assert before == list(of(folder.rename(tmp_path.parent / f"{tmp_path.name}-moved")).documents("sae", 0))
