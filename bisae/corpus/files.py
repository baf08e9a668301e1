"""Find the files that a path, a glob or a folder names, and read their rows."""

import bz2
import gzip
import json
import logging
import lzma
import os
import re
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from bisae.runtime.errors import Refused

READABLE = (
    "what can be read: JSON Lines in UTF-8 (one object a line), plain or packed (.gz, .zst, .xz, .bz2); Parquet; "
    "folders of these; and what `datasets` saved with save_to_disk"
)
PACKED = ("gz", "zst", "xz", "bz2")
ARROW = (".parquet", ".arrow")
IN_A_FOLDER = re.compile(rf"\.((jsonl?|ndjson)(\.({'|'.join(PACKED)}))?|parquet)", re.IGNORECASE)  # a name's end
# Files that Hugging Face libraries leave beside the data.
ABOUT_DATA = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")

log = logging.getLogger(__name__)


def find(patterns: Sequence[str]) -> list[str]:
    """Return the files that paths, folders and globs name, each once and sorted.

    A name that could also be a glob is taken as the path that exists. Raises Refused (`files`) for one without a file.
    """
    names: set[str] = set()
    for pattern in patterns:
        path = Path(pattern).expanduser()
        matches = [path] if path.exists() else [Path(match) for match in sorted(glob(str(path), recursive=True))]
        folders = [match for match in matches if match.is_dir()] if pattern.strip() else []
        files = [match for match in matches if match.is_file()]
        if files and folders:
            log.info("%s: only the files it names are read, not the folder %s", pattern, folders[0])
        files = files or [file for folder in folders for file in files_in(folder)]
        if not files:
            raise Refused("files", pattern, f"no such file; {READABLE}")
        names.update(map(str, files))
    by_target: dict[str, str] = {}  # a file reached by two names is read once
    for file in sorted(names):
        by_target.setdefault(os.path.realpath(file), file)
    return list(by_target.values())


def files_in(folder: Path, above: frozenset[Path] = frozenset()) -> list[Path]:
    """Return the data files in a folder and its subfolders; of a folder saved by `datasets`, the files it lists."""
    if folder.resolve() in above:  # a link to a folder that holds it
        return []
    try:
        if (described := folder / ABOUT_DATA[0]).is_file():
            splits = json.loads(described.read_bytes())["splits"]
            if len(splits) > 1:
                log.info("%s: all its splits are read, %s", folder, ", ".join(splits))
            return [file for split in splits for file in files_in(folder / split)]
        if all((folder / name).is_file() for name in ("dataset_info.json", "state.json")):
            return [
                folder / file["filename"] for file in json.loads((folder / "state.json").read_bytes())["_data_files"]
            ]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused("files", folder, f"is damaged, or not what `datasets` saved: {error!r}") from error
    files, left_out = [], []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            files += files_in(path, above | {folder.resolve()})
        elif IN_A_FOLDER.search(path.name) and IN_A_FOLDER.sub("", path.name) and path.name not in ABOUT_DATA:
            files.append(path)
        else:
            left_out.append(path.name)
    if left_out:
        log.info("%s: not read: %s", folder, ", ".join(left_out))
    return files


def is_arrow(path: str) -> bool:
    return path.lower().endswith(ARROW)


def lines(path: str) -> Iterator[bytes]:
    """Yield the lines of a text file, decompressed according to its file extension (such as `.gz`)."""
    ending = Path(path).suffix.lower()
    if ending == ".zst":
        # Not `zstandard`: it ends without an error after the first frame, and where a file is cut off.
        from io import BufferedReader

        from pyarrow import input_stream

        with input_stream(path, compression="zstd") as stream:
            yield from BufferedReader(stream)
    else:
        opener: Any = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}.get(ending, open)
        with opener(path, "rb") as file:
            yield from file


def cells(path: str, field: str) -> Iterator[tuple[str, Any]]:
    """Yield (column name, value) for each row of a Parquet or Arrow file.

    The column is `field`, or the first part of a dotted `field`. Raises Refused (`field`) if the file has neither.
    """
    from pyarrow import ipc, memory_map
    from pyarrow.parquet import ParquetFile

    def column(names: Sequence[str]) -> str:
        for name in (field, field.split(".")[0]):
            if name in names:
                return name
        raise Refused("field", field, f"no such text in {path}, which has {list(names)}")

    if path.lower().endswith(".parquet"):
        with ParquetFile(path) as file:
            name = column(file.schema_arrow.names)
            for batch in file.iter_batches(1000, columns=[name]):
                yield from ((name, value) for value in batch.column(0))
    else:
        with memory_map(path) as mapped, ipc.open_stream(mapped) as stream:
            name = column(stream.schema.names)
            for batch in stream:
                yield from ((name, value) for value in batch.column(name))
