"""What the stages found, in one table: bars, and the quickest backend of each shape."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

GIB = 2**30
STUDY, NARROW = {"d_model": 2048, "batch": 32768}, {"d_model": 512, "batch": 32768}


def rows(content: Mapping[str, Any], stage: str, **same: Any) -> list[dict[str, Any]]:
    """The rows of a stage with these values, without those that say an error."""
    found = content["stages"].get(stage, {"rows": []})["rows"]
    return [row for row in found if all(row.get(key) == value for key, value in same.items()) and "error" not in row]


def passing(content: Mapping[str, Any]) -> set[tuple[str, str]]:
    """(backend, precision) of those that passed every gate they came to, and came to the first."""
    failed = {
        _who(row)
        for stage in ("gates", "resume")
        for row in rows(content, stage)
        if not row.get("passes", row["bit_equal"])
    }
    return {_who(row) for row in rows(content, "gates")} - failed


def _who(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["backend"], row["precision"]


def quickest(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each shape and precision the backend with the least step, of those that pass."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    able = passing(content)
    for row in rows(content, "steps"):
        key = tuple(row[name] for name in ("d_model", "latents", "batch", "k", "precision"))
        if _who(row) in able and row["ratio"] < best.get(key, {"ratio": float("inf")})["ratio"]:
            best[key] = row
    names = ("d_model", "latents", "batch", "k", "precision", "backend", "ratio")
    return [{name: row[name] for name in names} for row in best.values()]


def bars(content: Mapping[str, Any]) -> Iterator[tuple[str, float | None, float, bool]]:
    """(what, found, bar, whether it is an upper bound); None where it was not measured."""

    def least(stage: str, value: str, **same: Any) -> float | None:
        return min((row[value] for row in rows(content, stage, **same) if row.get(value) is not None), default=None)

    def ours(value: str, **same: Any) -> float | None:
        able = passing(content)
        found = rows(content, "steps", precision="bf16-mixed", **same)
        return min((row[value] for row in found if _who(row) in able and row[value] is not None), default=None)

    def times(peer: str) -> float | None:
        theirs, own = least("peers", "step_seconds", peer=peer, **STUDY), ours("step_seconds", **STUDY)
        return theirs / own if theirs and own else None

    memory, selections = ours("peak_bytes", **STUDY), rows(content, "parts", part="selection")
    selection = min((row["seconds"] for row in selections if not row["way"].startswith("flashinfer")), default=None)
    same = [row["bit_equal"] for stage in ("gates", "resume") for row in rows(content, stage)]
    yield "step in bf16 products, d 2048, batch 32 768", ours("ratio", **STUDY), 2.2, True
    yield "step in bf16 products, d 512, batch 32 768", ours("ratio", **NARROW), 3.0, True
    yield "sparsify's step in ours", times("sparsify"), 2.5, False
    yield "SAELens' step in ours", times("sae_lens"), 5.0, False
    yield "selection, ms", selection and 1e3 * selection, 1.1, True
    yield "memory of one member, GB", memory and memory / 1e9, 8.0, True
    yield "caching in forward passes", least("caching", "cached_of_forward"), 1.1, True
    yield "reruns and resumes equal bit for bit, share", sum(same) / len(same) if same else None, 1.0, False


def finish(content: dict[str, Any], root: Path) -> None:
    """Add bars and quickest backends to the result, print them, and write the latter where training reads them."""
    say: Callable[[str], None] = print
    if content["smoke"]:
        say("a smoke run: its times mean nothing")
        return
    content["bars"] = [
        {
            "bar": what,
            "found": found,
            "limit": limit,
            "met": None if found is None else (found <= limit) == upper or found == limit,
        }
        for what, found, limit, upper in bars(content)
    ]
    content["quickest"] = best = quickest(content)
    say(f"\n{'bar':48} {'limit':>8} {'found':>12}")
    for row in content["bars"]:
        found = "not measured" if row["found"] is None else f"{row['found']:.3g}{'' if row['met'] else ' !'}"
        say(f"{row['bar']:48} {row['limit']:8} {found:>12}")
    for row in best:  # in bf16 products
        say(f"d {row['d_model']:5} batch {row['batch']:6} {row['precision']:10} {row['backend']:10} {row['ratio']:.2f}")
    if best and content["devices"]:
        path = root / "bisae" / "sae" / "kernels" / "measured.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, content["slug"]: best}, indent=1) + "\n")
        say(f"written: {path}")
