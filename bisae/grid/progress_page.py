"""The progress of a grid as text, and as one HTML page without other files."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape

from bisae.grid.plan_table import duration
from bisae.grid.progress import CellState, GridProgress

SIGNS = {"done": "#", "running": ">", "failed": "!", "missing": "."}
SHADES = {"done": "#009E73", "running": "#56B4E9", "failed": "#D55E00", "missing": "#e6e6e6"}  # Okabe and Ito
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }}
table {{ border-collapse: separate; border-spacing: 2px; font-size: 12px }}
th {{ font-weight: normal; text-align: right }}
td {{ width: 1.6em; height: 1.4em; text-align: center; border-radius: 3px }} {classes}
li {{ overflow-wrap: anywhere }}</style><h1>{title}</h1><p>{summary}</p>
{tables}{failures}<p>{legend}</p></html>
"""


def summary(progress: GridProgress) -> str:
    """The progress in one line."""
    counts, total = progress.counts, sum(progress.counts.values())
    states = ", ".join(f"{counts[state]:,} {state}" for state in SIGNS)
    done = counts["done"] / total
    left = "unknown yet" if progress.seconds is None else duration(progress.seconds / 3600)
    if not progress.running and progress.seconds:
        left += " once one job runs"
    return f"{total:,} cells: {states} ({done:.1%}); {progress.running} jobs running; left: {left}"


def text(progress: GridProgress) -> str:
    """The progress as text: one row for each step, one sign for each cell, layers from left to right."""
    lines = [summary(progress)]
    for preset, cells in progress.of.items():
        lines += ["", f"{preset}, layers {_layers(cells)}"]
        lines += [f"  {step:>8}  {''.join(SIGNS[cell.state] for cell in row)}" for step, row in _rows(cells).items()]
    lines += ["", "  ".join(f"{sign} {state}" for state, sign in SIGNS.items())]
    for error, where in progress.failures.items():
        lines += ["", f"{error}", f"  {'; '.join(where)}"]
    return "\n".join(lines)


def html(progress: GridProgress, title: str) -> str:
    """The progress as a page; the pointer on a cell shows its details."""
    tables = []
    for preset, cells in progress.of.items():
        rows = []
        for step, row in _rows(cells).items():
            boxes = "".join(_box(cell) for cell in row)
            rows.append(f"<tr><th>{step}</th>{boxes}</tr>")
        tables.append(f"<h2>{escape(preset)}</h2><p>layers {_layers(cells)}</p><table>{''.join(rows)}</table>\n")
    failures = "".join(
        f"<li>{escape(error)}<br><small>{escape('; '.join(where))}</small></li>"
        for error, where in progress.failures.items()
    )
    return PAGE.format(
        title=escape(title),
        summary=f"{escape(summary(progress))}. {datetime.now():%Y-%m-%d %H:%M}.",
        classes=" ".join(f".{state} {{ background: {shade} }}" for state, shade in SHADES.items()),
        tables="".join(tables),
        failures=f"<h2>Failed</h2><ul>{failures}</ul>" if failures else "",
        legend=" ".join(f'<span class="{state}">&nbsp;{sign} {state}&nbsp;</span>' for state, sign in SIGNS.items()),
    )


def _box(cell: CellState) -> str:
    place = cell.place
    name = f"step {place.step}, layer {place.layer}, {place.sae}, lr {place.known['sae']['lr']:g}"
    return f'<td class="{cell.state}" title="{escape(f"{name}: {cell.state}, {cell.detail}")}">{SIGNS[cell.state]}</td>'


def _rows(cells: Sequence[CellState]) -> Mapping[int, list[CellState]]:
    """The cells by step."""
    rows: dict[int, list[CellState]] = {}
    for cell in cells:
        rows.setdefault(cell.place.step, []).append(cell)
    return rows


def _layers(cells: Sequence[CellState]) -> str:
    layers = sorted({cell.place.layer for cell in cells})
    return (
        f"{layers[0]} to {layers[-1]}"
        if layers == list(range(layers[0], layers[-1] + 1))
        else ", ".join(map(str, layers))
    )
