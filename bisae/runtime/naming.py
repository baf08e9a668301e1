"""Names by content: hashes of settings and of files."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash


def name_of(settings: Mapping[str, Any]) -> str:
    """Return the first 12 hex digits of the SHA-256 of settings as JSON."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def checksum(files: list[Path]) -> str:
    """Return the xxh3 of the files' names and bytes, read in pieces."""
    digest = xxhash.xxh3_128()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as handle:
            while piece := handle.read(1 << 24):
                digest.update(piece)
    return digest.hexdigest()
