"""Which files are read, in which formats, and what is said of those that cannot be."""

import bz2
import gzip
import json
import logging
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from bisae.corpus.jsonl import JsonlCorpus
from bisae.runtime.errors import Refused

TEXTS = [f"le chat numéro {n} dort sous l’arbre" for n in range(40)]
LINES = b"".join(json.dumps({"id": n, "text": text}).encode() + b"\n" for n, text in enumerate(TEXTS))


def zstd(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


PACK: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "zst": zstd, "xz": lzma.compress, "bz2": bz2.compress}


def jsonl(files: Any, **changes: Any) -> JsonlCorpus:
    arguments: dict[str, Any] = {"name": "mine", "field": "text", "seed": 0, "buffer": 50, "splits": {"sae": 1.0}}
    files = files if isinstance(files, dict) else {"fr": str(files)}
    return JsonlCorpus(**{**arguments, "files": files, **changes})


def texts(files: Any, **changes: Any) -> list[str]:
    return sorted(document.text for document in jsonl(files, **changes).documents("sae", 0))


def parquet(path: Path, column: pa.Array, name: str = "text") -> Path:
    pq.write_table(pa.table({"id": list(range(len(column))), name: column}), path)
    return path


@pytest.mark.parametrize("ending", ["gz", "zst", "xz", "bz2", "GZ", "Zst", "XZ", "BZ2"])
def test_packed_files_are_read_whole_also_when_packed_in_parts(tmp_path: Path, ending: str) -> None:
    pack, half = PACK[ending.lower()], len(LINES) // 2
    (tmp_path / f"fr.jsonl.{ending}").write_bytes(pack(LINES[:half]) + pack(LINES[half:]))
    assert texts(tmp_path / f"fr.jsonl.{ending}") == sorted(TEXTS)


@pytest.mark.parametrize("ending", PACK)
def test_a_packed_file_that_is_cut_off_is_refused_by_name_even_where_bad_rows_are_left_out(
    tmp_path: Path, ending: str
) -> None:
    packed = PACK[ending](LINES * 50)
    for number, cut in enumerate((6, len(packed) // 2, len(packed) - 1)):
        (tmp_path / f"{number}.{ending}").write_bytes(packed[:cut])
        with pytest.raises(Refused, match=rf"^files=.*{number}.{ending}:\d+: cannot be read"):
            texts(tmp_path / f"{number}.{ending}", skip_bad=True)


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_parquet_is_read_whatever_the_type_of_its_strings(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array(TEXTS).cast(kind) if not pa.types.is_string_view(kind) else pa.array(TEXTS, kind)
    assert texts(parquet(tmp_path / "fr.PARQUET", column)) == sorted(TEXTS)


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (pa.array([[text] for text in TEXTS]), "is a list in"),
        (pa.array([text.encode() for text in TEXTS]), "is binary in"),
        (pa.array([None, *TEXTS]), "is null in"),
        (pa.array(TEXTS), r"no such text in .*, which has \['id', 'body'\]"),
    ],
)
def test_a_parquet_column_of_something_else_is_refused(tmp_path: Path, column: pa.Array, found: str) -> None:
    name = "body" if "which has" in found else "text"
    with pytest.raises(Refused, match=f"^field=text: {found}"):
        jsonl(parquet(tmp_path / "fr.parquet", column, name))


def test_a_parquet_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    file = parquet(tmp_path / "fr.parquet", pa.array(TEXTS))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(Refused, match=r"^files=.*fr.parquet:0: cannot be read as Parquet"):
        jsonl(file)


def test_saved_datasets_are_read_and_of_several_splits_all_or_the_one_named(tmp_path: Path, caplog: Any) -> None:
    saved = Dataset.from_dict({"meta": [{"text": text} for text in TEXTS], "n": [0] * len(TEXTS)})
    saved.filter(lambda row: "3" not in row["meta"]["text"]).save_to_disk(tmp_path / "one", num_shards=3)
    (tmp_path / "one" / "cache-1.arrow").write_bytes(b"of a map, no data")
    kept = sorted(text for text in TEXTS if "3" not in text)
    assert texts(tmp_path / "one", field="meta.text") == kept
    halves = DatasetDict(train=saved.select(range(30)), test=saved.select(range(30, 40)))
    halves.save_to_disk(tmp_path / "two")
    with caplog.at_level(logging.INFO):
        assert texts(tmp_path / "two", field="meta.text") == sorted(TEXTS)
    assert "all its splits are read, train, test" in caplog.text
    assert texts(tmp_path / "two" / "test", field="meta.text") == sorted(TEXTS[30:])
    data = tmp_path / "two" / "test" / "data-00000-of-00001.arrow"
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(Refused, match=r"^files=.*test/data-00000-of-00001.arrow:0: cannot be read as Parquet or"):
        jsonl(tmp_path / "two", field="meta.text")
    data.unlink()
    with pytest.raises(Refused, match=r"^files=.*two/test/data-00000-of-00001.arrow:0: cannot be read"):
        jsonl(tmp_path / "two", field="meta.text")
    (tmp_path / "one" / "state.json").write_text("{}")
    with pytest.raises(Refused, match=r"^files=.*one: is damaged"):
        jsonl(tmp_path / "one")


def test_a_folder_is_read_with_the_folders_below_but_for_what_is_no_data(tmp_path: Path, caplog: Any) -> None:
    folder = tmp_path / "fr [old] lr=1"
    (folder / "below").mkdir(parents=True)
    (folder / "a.jsonl").write_bytes(LINES)
    parquet(folder / "below" / "b.parquet", pa.array(["encore un texte"]))
    for name in ("README.md", "dataset_infos.json", ".hidden.jsonl", ".jsonl"):
        (folder / name).write_text("no data")
    os.symlink(folder, folder / "below" / "loop")
    os.symlink(folder / "a.jsonl", folder / "z.jsonl")
    with caplog.at_level(logging.INFO):
        assert texts(folder) == sorted([*TEXTS, "encore un texte"])
    assert "not read: README.md, dataset_infos.json" in caplog.text
    assert texts(f"{tmp_path}/f*") == texts(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match=r"^files=.*empty: no such file; what can be read: JSON Lines"):
        jsonl(tmp_path / "empty")


def test_an_existing_name_is_no_glob_and_a_glob_that_names_files_names_no_folders(tmp_path: Path) -> None:
    (tmp_path / "en[1].jsonl").write_bytes(LINES)
    (tmp_path / "en1.jsonl").write_text('{"text": "another file"}')
    (tmp_path / "en2.jsonl").mkdir()
    (tmp_path / "en2.jsonl" / "c.jsonl").write_text('{"text": "below"}')
    assert texts(tmp_path / "en[1].jsonl") == sorted(TEXTS)
    assert texts(tmp_path / "en[12].jsonl") == ["another file"]


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "fr.jsonl").write_bytes(LINES)
    assert texts("~/fr.jsonl") == texts("~/*.jsonl") == sorted(TEXTS)


@pytest.mark.parametrize("files", ["", " ", None, 3, [], [None]])
def test_what_is_no_path_is_refused(files: Any) -> None:
    with pytest.raises(Refused, match=r"^files="):
        jsonl({"fr": files})


def test_one_file_under_two_names_is_read_once_and_a_copy_is_said(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    os.symlink(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    corpus = jsonl({"fr": [f"{tmp_path}/a.jsonl", f"{tmp_path}/../{tmp_path.name}/a.jsonl", f"{tmp_path}/b.jsonl"]})
    assert len(list(corpus.documents("sae", 0))) == len(TEXTS)
    corpus.checksum("sae")
    assert not caplog.text
    (tmp_path / "c.jsonl").write_bytes(LINES)
    jsonl(tmp_path).checksum("sae")
    assert "c.jsonl holds the same text as" in caplog.text


def test_the_same_text_for_two_languages_is_refused_but_not_two_empty_files(tmp_path: Path) -> None:
    for name, content in (("fr", LINES), ("de", LINES), ("empty", b""), ("none", b"")):
        (tmp_path / f"{name}.jsonl").write_bytes(content)
    for one, other in (("fr", "fr"), ("fr", "de"), ("fr", "*")):
        with pytest.raises(Refused, match=r"^files=.*the same text as .*: it cannot be both fr and de"):
            jsonl({"fr": f"{tmp_path}/{one}.jsonl", "de": f"{tmp_path}/{other}.jsonl"}).checksum("sae")
    jsonl({"fr": f"{tmp_path}/empty.jsonl", "de": [f"{tmp_path}/none.jsonl"]}).checksum("sae")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("fr.txt", b"un texte\nun autre\n"),
        ("fr.csv", b"id,text\n1,un texte\n"),
        ("fr.json", json.dumps([{"text": text} for text in TEXTS], indent=1).encode()),
        ("fr.jsonl", LINES.decode().encode("utf-16")),
        ("fr.zip", b"PK\x03\x04\x14\x00"),
        ("fr.jsonl", gzip.compress(LINES)),
    ],
)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_the_refusal_of_another_format_says_what_can_be_read(
    tmp_path: Path, name: str, content: bytes, skip_bad: bool
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused, match=rf"^files=.*{name}.*what can be read: JSON Lines in UTF-8"):
        jsonl(tmp_path / name, skip_bad=skip_bad)


def test_byte_order_marks_other_line_ends_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "fr.jsonl").write_bytes(b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n\r\n"))
    assert texts(tmp_path / "fr.jsonl") == sorted(TEXTS)


def test_a_nested_field_is_read_a_field_of_that_very_name_first(tmp_path: Path) -> None:
    rows = [{"meta": {"text": "nested", "langs": ["fr"]}}, {"meta.text": "flat", "meta": {"text": "nested"}}]
    (tmp_path / "fr.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert texts(tmp_path / "fr.jsonl", field="meta.text") == ["flat", "nested"]
    for field, error in (
        ("meta.body", r"no such text in .*fr.jsonl:1, where meta has \['text', 'langs'\]"),
        ("meta.langs.0", r"no such text in meta.langs of .*fr.jsonl:1, which is a list, no object"),
        ("meta", r"is an object in .*fr.jsonl:1, no text"),
    ):
        with pytest.raises(Refused, match=f"^field={field}: {error}"):
            jsonl(tmp_path / "fr.jsonl", field=field)


def test_bad_rows_are_left_out_where_asked_counted_and_named(tmp_path: Path) -> None:
    bad = [b'{"text": null}', b"no JSON", b'{"body": "x"}', b"[1]", b'{"text": "\xff"}', b'{"text": "\\ud800"}']
    (tmp_path / "fr.jsonl").write_bytes(b"\n".join([*bad, LINES]))
    corpus = jsonl(tmp_path / "fr.jsonl", skip_bad=True)
    for _ in range(2):  # each reading counts anew
        found = {document.text for document in corpus.documents("sae", 0)}
        assert found == set(TEXTS)
    left_out = corpus.left_out["sae", "fr"]
    assert left_out.count == len(bad)
    assert len(left_out.places) == 3 and set(left_out.places) < {f"{tmp_path}/fr.jsonl:{n}" for n in range(1, 7)}
    (tmp_path / "fr.jsonl").write_bytes(b"\n".join([LINES, *bad]))
    with pytest.raises(Refused, match=r"^field=text: is null in .*fr.jsonl:42, no text; skip_bad=true"):
        texts(tmp_path / "fr.jsonl")
