"""Files that appear complete or not at all: write beside, fsync, rename, fsync the folder."""

import glob
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _temporary(path: Path) -> Path:
    """Return a new name beside `path`. Temporary files that killed processes of this machine left are removed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.{_place()}-"
    for stale in path.parent.glob(f"{glob.escape(prefix)}*.tmp"):
        process = stale.name.removeprefix(prefix).split("-")[0]
        if process.isdecimal() and not _alive(int(process)):
            shutil.rmtree(stale, ignore_errors=True) if stale.is_dir() else stale.unlink(missing_ok=True)
    return path.with_name(f"{prefix}{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")


def _place() -> str:
    """Name the host, and the container if there is one: process ids are unique only there."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}-{namespace.stat().st_ino if namespace.exists() else 0}"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process
        return True
    return True


def sync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(temporary: Path, path: Path) -> None:
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on leaving without an error it becomes `path`.

    After an error or a kill `path` is as it was; an error also removes the temporary file.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        _publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Like `atomic_file` for a folder, which must not exist yet. Files in it are fsynced one by one."""
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                sync(file)
        _publish(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented UTF-8 JSON, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")
