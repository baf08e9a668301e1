"""Tokens as people read them."""

import codecs
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

SPACES = {"▁": " "}  # SentencePiece's space mark


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The readable text of each token of a whole sequence; joined they are its text.

    A character of several tokens (byte fallback, or byte-level BPE in the middle of a character) is given to the last
    of them, the others are empty; bytes that are no character become U+FFFD.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return _decoded(tokenizer, ids)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    byte_level = _byte_level(tokenizer)
    found = [decoder.decode(_bytes(token or "", byte_level)) for token in tokens]
    if found:
        found[-1] += decoder.decode(b"", final=True)
    return found


def token_texts(tokenizer: Any) -> list[str]:
    """Every token of the vocabulary as v1 shows it: spaces for space marks, `<0x0A>` for a byte; none for a gap."""
    ids = list(range(len(tokenizer)))
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return [tokenizer.decode([number]) or "\ufffd" for number in ids]
    tokens: Iterable[str] = (token or "" for token in tokenizer.convert_ids_to_tokens(ids))
    if _byte_level(tokenizer):
        return [_bytes(token, True).decode("utf-8", "replace") for token in tokens]
    return [token.replace("▁", " ") for token in tokens]


def _decoded(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """`pieces` of a tokenizer written in Python: what its text grows by with each token."""
    found, start, here = [], 0, 0  # decoded from the character before the last, since a text may lose its first space
    for end in range(1, len(ids) + 1):
        known, text = tokenizer.decode(ids[start:here]), tokenizer.decode(ids[start:end])
        whole = len(text) > len(known) and not text.endswith("\ufffd")
        found.append(text[len(known) :] if whole or (end == len(ids) and text) else "")
        if whole:
            start, here = here, end
    return found


def _byte_level(tokenizer: Any) -> bool:
    """Whether tokens are spelled in GPT-2's alphabet of bytes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and "ByteLevel" in f"{backend.pre_tokenizer} {backend.decoder}"


def _bytes(token: str, byte_level: bool) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    if byte_level and all(character in _alphabet() for character in token):
        return bytes(_alphabet()[character] for character in token)
    for mark, space in SPACES.items():
        token = token.replace(mark, space)
    return token.encode()


@cache
def _alphabet() -> dict[str, int]:
    """GPT-2's: printable bytes stand for themselves, the others for characters from U+0100 on, in order."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
