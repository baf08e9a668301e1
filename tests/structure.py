"""The rooms of bisae (its packages), who imports whom, and circles: python -m tests.structure [another checkout]"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

# Each room imports only from rooms before it.
ORDER = (
    *("runtime", "config", "corpus", "activations", "lm", "sae", "cells", "metrics", "features", "training", "edits"),
    *("planted", "analysis", "translation", "intervention", "report", "grid", "convert", "pretrain", "cli"),
)
Arrows = Mapping[tuple[str, str], int]  # (importing room, imported room): how many imports


def modules(root: Path) -> dict[str, list[Path]]:
    """Python files by room; a loose module is a room of its own."""
    rooms: dict[str, list[Path]] = {}
    for path in sorted((root / "bisae").rglob("*.py")):
        rooms.setdefault(path.relative_to(root / "bisae").parts[0].removesuffix(".py"), []).append(path)
    return rooms


def imported(path: Path) -> Iterator[str]:
    """Modules and names of bisae that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and f"{node.module}.".startswith("bisae."):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("bisae."))


def module_arrows(root: Path) -> Counter[tuple[str, str]]:
    """From every module to those it imports when it is imported itself."""
    files = {".".join(path.relative_to(root).with_suffix("").parts): path for path in (root / "bisae").rglob("*.py")}
    found: Counter[tuple[str, str]] = Counter()
    for module, path in files.items():
        nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
        while nodes:
            node = nodes.pop()
            if isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
                found.update((module, other) for other in names if other in files)
            typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            nodes += () if typing_only or isinstance(node, ast.FunctionDef) else ast.iter_child_nodes(node)
    return found


def arrows(root: Path) -> Counter[tuple[str, str]]:
    """From every room to the rooms it imports."""
    rooms = modules(root)
    found = ((room, name.split(".")[1]) for room, files in rooms.items() for file in files for name in imported(file))
    return Counter((room, other) for room, other in found if other != room and other in rooms)


def circles(found: Arrows) -> list[set[str]]:
    """Rooms that import each other, directly or through others."""
    reached: dict[str, set[str]] = {}
    for start in {room for arrow in found for room in arrow}:
        reached[start], waiting = set(), [start]
        while waiting:
            here = waiting.pop()
            after = {other for room, other in found if room == here} - reached[start]
            reached[start] |= after
            waiting += after
    groups: list[set[str]] = []
    for room in sorted(reached):
        group = {other for other in reached[room] if room in reached.get(other, ())}
        if group and group not in groups:
            groups.append(group)
    return groups


def classes(root: Path) -> dict[str, list[str]]:
    """Where public classes are, by name."""
    places: dict[str, list[str]] = {}
    for path in sorted((root / "bisae").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(root)))
    return places


def described(root: Path) -> str:
    """A line a room, with its files, lines and arrows; then circles, and names that stand for several classes."""
    rooms, found = modules(root), arrows(root)
    lines = []
    for room in sorted(rooms, key=lambda room: (ORDER.index(room) if room in ORDER else -1, room)):
        length = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in rooms[room])
        others = ", ".join(sorted(other for start, other in found if start == room))
        lines.append(f"{room:<14}{len(rooms[room]):4d} files {length:6d} lines -> {others}")
    twice = {name: places for name, places in classes(root).items() if len(places) > 1}
    return "\n".join(
        [
            *lines,
            f"{len(rooms)} rooms, {len(found)} arrows between them",
            f"circles: {'; '.join(', '.join(sorted(group)) for group in circles(found)) or 'none'}",
            f"names of several classes: {', '.join(twice) or 'none'}",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(described(Path(sys.argv[1] if len(sys.argv) > 1 else ".")) + "\n")
