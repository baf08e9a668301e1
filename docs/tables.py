"""The tables of README.md and docs/, each from the results that its commands left in a folder (docs/make_tables.py)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from bisae.cells.find import find_cells
from bisae.features.measures.bilingual import bilingual_by_chance, is_bilingual
from bisae.metrics.intervals import further_interval, t_interval

LMS = Path(__file__).parent.parent / "bisae" / "embedded" / "lm"
LADDERS = {
    "embedded": "4 layers, d_model 128, bridging documents",
    "embedded_control": "the same without bridging documents",
    "embedded_seed1": "main recipe, another seed",
    "embedded_d64": "main recipe at d_model 64",
    "embedded_parallel": "8 layers, d_model 96, rare Japanese, sentences beside their translations",
    "embedded_unpaired": "its control, the same sentences, none beside its translation",
    "embedded_parallel_seed1": "`embedded_parallel`, another seed",
    "embedded_unpaired_seed1": "its control",
    "embedded_parallel_seed2": "`embedded_parallel`, a third seed",
    "embedded_unpaired_seed2": "its control",
    "embedded_parallel_d64": "`embedded_parallel` at d_model 64",
    "embedded_unpaired_d64": "its control",
    "embedded_parallel_d160": "`embedded_parallel` at d_model 160",
    "embedded_unpaired_d160": "its control",
}
PARALLEL, UNPAIRED = (
    tuple(name + seed for seed in ("", "_seed1", "_seed2")) for name in ("embedded_parallel", "embedded_unpaired")
)
OTHER_SIZES = tuple(name + size for name in (PARALLEL[0], UNPAIRED[0]) for size in ("_d64", "_d160"))
SIZED = (  # column, metric, of the middle third only
    ("aligned", "aligned", False),
    ("aligned, middle third", "aligned", True),
    ("bilingual", "bilingual", False),
    ("translations found by the stream, middle third", "retrieval_stream", True),
)
KINDS = {"none": "nothing", "en": "En", "ja": "Ja", "bi": "Bi", "mixed": "Mixed"}
SHOWN = ("Mixed", "bilingual", "aligned", "contextual", "monosemanticity")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]]).replace("|  |", "| |")


def cells(folder: Path) -> str:
    """FVU and dead latents of the main ladder's cells at three steps."""
    found = {(cell.step, cell.layer): cell.metrics for cell in find_cells(str(folder / "runs" / "embedded"), folder)}
    layers = sorted({layer for _, layer in found})
    steps = [step for step in (0, 512, 2048) if (step, layers[0]) in found]
    values = [[found[step, layer] for layer in layers] for step in steps]
    texts = [[f"{one['val/fvu']:.4f} / {one['val/dead']:.4f}" for one in row] for row in values]
    header = ["LM step", *(f"layer {layer}" for layer in layers)]
    return table(header, [[str(step), *row] for step, row in zip(steps, texts, strict=True)])


def described(cells: pd.DataFrame, name: str, further: Mapping[str, Sequence[str]]) -> str:
    """A row a cell, named by its column `name`: what is SHOWN with 95 % over features, then `further` columns."""
    rows = [
        [
            str(row[name]),
            *(with_interval(row, metric) for metric in SHOWN),
            *(column[number] for column in further.values()),
        ]
        for number, (_, row) in enumerate(cells.iterrows())
    ]
    return table([name, *SHOWN, *further], rows)


def with_interval(row: pd.Series, metric: str) -> str:
    """A metric with 95 % over features."""
    return f"{row[metric]:.3f} [{row[f'{metric}_low']:.3f}, {row[f'{metric}_high']:.3f}]"


def report(folder: Path, output: str = "report") -> pd.DataFrame:
    """The cells of a report."""
    return pd.read_csv(folder / output / "cells.csv")


def steps(folder: Path) -> str:
    """Layer 2 over the LM's training, and the end of the LM without bridging documents."""
    found = report(folder)
    shown = found[(found["layer"] == 2) & found["model"].isin(["embedded", "embedded_control"])]
    names = shown["step"].astype(str) + shown["model"].map({"embedded": "", "embedded_control": ", `embedded_control`"})
    return described(shown.assign(**{"LM step": names}).sort_values(["model", "step"]), "LM step", {})


def layers(folder: Path) -> str:
    """All layers of the main LM at its end, and how many features are aligned at other thresholds."""
    found = report(folder)
    last = found[(found["step"] == 2048) & (found["model"] == "embedded")].sort_values("layer")
    further = {least: [] for least in (0.3, 0.4)}
    for place in last["folder"]:
        features = pd.read_parquet(folder / place / "features.parquet")
        alive = features[features["class"] != "dead"]
        for least, shares in further.items():
            shares.append(f"{(alive['aligned'] & (alive['alignment'] >= least)).mean():.3f}")
    return described(last, "layer", {f"aligned, r ≥ {least}": shares for least, shares in further.items()})


def over_lms(cells: pd.DataFrame, metric: str) -> str:
    """The mean of each LM's cells, and over the LMs with 95 % over them."""
    return with_seeds(cells.groupby("model")[metric].mean())


def with_seeds(values: pd.Series) -> str:
    """The mean of a value for each LM, with 95 % over them."""
    low, high = t_interval(values.to_numpy(float))
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def seeds(folder: Path) -> str:
    """Over the training of the LMs of eight layers, all layers together, and at the end of their controls."""
    found, rows = report(folder, "deep"), []
    for control in (False, True):
        for step, cells in found[found["control"] == control].groupby("step"):
            name = f"{step}, controls" if control else str(step)
            rows.append([name, *(over_lms(cells, metric) for metric in SHOWN)])
    return table(["LM step", *SHOWN], rows)


def deep(folder: Path) -> str:
    """Layer by layer at the end of the LMs of eight layers and of their controls."""
    found = report(folder, "deep")
    last = found[found["step"] == found["step"].max()]
    rows = []
    for layer, cells in last.groupby("layer"):
        of_lm, of_control = (cells[cells["control"] == control] for control in (False, True))
        texts = [over_lms(of_lm, metric) for metric in ("aligned", "bilingual", "contextual", "retrieval_stream")]
        texts += [over_lms(of_control, metric) for metric in ("aligned", "retrieval_stream")]
        rows.append([str(layer), *texts])
    names = ["aligned", "bilingual", "contextual", "translations found"]
    return table(["layer", *names, "aligned, controls", "translations found, controls"], rows)


def parts(folder: Path) -> str:
    """Thirds of the depth, as the report has them, at the end of the LMs of eight layers; differences within LMs."""
    found = report(folder, "deep")
    last = found[(found["step"] == found["step"].max()) & ~found["control"]]
    names = {"aligned": "aligned", "bilingual": "bilingual"}
    names |= {f"retrieval_{space}": f"translations found by the {space}" for space in ("stream", "codes")}
    rows = []
    for metric, name in names.items():
        by_lm = last.groupby(["model", third(last)], observed=True)[metric].mean().unstack()
        less = [by_lm["middle"] - by_lm[other] for other in ("lower", "upper")]
        rows.append([name, *(with_seeds(values) for values in (*(by_lm[part] for part in by_lm), *less))])
    return table(["", "lower", "middle", "upper", "middle less lower", "middle less upper"], rows)


def third(cells: pd.DataFrame) -> pd.Series:
    """The third of its LM's depth that each cell is in, as reports have it."""
    return pd.cut((cells["layer"] - 0.5) / cells["depth"], [0, 1 / 3, 2 / 3, 1], labels=["lower", "middle", "upper"])


def sizes(folder: Path) -> str:
    """LMs of one recipe in three sizes at their end; other sizes less the three LMs of the middle size."""
    found = report(folder, "sizes")
    last = found[found["step"] == found["step"].max()]
    rows = []
    for control in (False, True):
        of = last[last["control"] == control]
        middle = of[third(of) == "middle"]
        by_lm = {
            metric: (middle if in_middle else of).groupby("model")[name].mean() for metric, name, in_middle in SIZED
        }
        for (width, parameters), cells in of.groupby(["d_model", "parameters"]):
            lms = cells["model"].unique()
            texts = [f"{width}, control" if control else str(width), f"{parameters / 1e6:.2f} M"]
            for values in by_lm.values():
                several = values[list(UNPAIRED if control else PARALLEL)]
                texts.append(with_seeds(several) if len(lms) > 1 else beside(values[lms[0]], several))
            rows.append(texts)
    return table(["d_model", "parameters", *by_lm], rows)


def beside(value: float, several: pd.Series) -> str:
    """The value of one LM, and less the mean of several, with 95 % for one more LM of their kind (Student)."""
    low, high = further_interval(several.to_numpy(float))
    return f"{value:.3f}; {value - several.mean():+.3f} [{value - high:.3f}, {value - low:.3f}]"


def source_gains(folder: Path, output: str) -> pd.DataFrame:
    """The source gains of a report of interventions, without the losses."""
    found = pd.read_csv(folder / output / "tables" / "source_gain.csv", keep_default_na=False, na_values=[""])
    return found[found["metric"].str.startswith("source_gain")]


def worth(folder: Path) -> str:
    """What taking each kind of features out of the LMs of eight layers changes of the source gain, over LM seeds."""
    found, rows = source_gains(folder, "worth"), []
    found = found[found["features"] != 0]
    for family, of in found.groupby("family", sort=False):
        for kind, group in of.groupby("kind", sort=False):
            features = [f"{count:.0f}" for count in group.drop_duplicates("model")["features"].dropna()]
            texts = [KINDS.get(kind, kind) + ", controls" * (family == UNPAIRED[0])]
            texts.append(", ".join(features if len(set(features)) > 1 else features[:1]))
            for _, values in group.groupby("metric", sort=False):
                of_lms = values.set_index("model")
                texts += [with_seeds(of_lms["value" if kind == "none" else "change"])]
                texts += ["" if of_lms["by"].isna().any() else with_seeds(of_lms["by"])]
            rows.append(texts)
    ways = [f"source gain {way}" for way in ("En→Ja", "Ja→En")]
    return table(["taken out", "features", *(text for way in ways for text in (way, "less the random sets'"))], rows)


def controls(folder: Path) -> str:
    """The demo's LMs at layer 2; by chance: shuffled labels, clusters, pairs."""
    found = report(folder, "demo")
    names = {
        ("embedded", 0): "random weights",
        ("embedded", 2048): "`embedded`, end",
        ("embedded_control", 2048): "`embedded_control`, end",
        ("embedded_d64", 2048): "`embedded_d64`, end",
    }
    rows = []
    for (model, step), name in names.items():
        (row,) = found[found[["model", "step", "layer"]].eq([model, step, 2]).all(axis=1)].to_dict("records")
        texts = [with_interval(pd.Series(row), "Mixed")]
        texts += [f"{row[one]:.3f} ({row[f'{one}_null']:.3f})" for one in ("monosemanticity", "bilingual")]
        texts += [f"{with_interval(pd.Series(row), 'aligned')} ({row['aligned_null']:.3f})"]
        rows.append([name, *texts])
    by_chance = [f"{one} (by chance)" for one in ("monosemanticity", "bilingual", "aligned")]
    return table(["LM", "Mixed", *by_chance], rows)


def bilingual(folder: Path) -> str:
    """Bilingual features by two rules, each beside its value by chance, and how many of them are aligned."""
    found = report(folder).sort_values(["model", "step", "layer"])
    rows = []
    steps_of_layer_2 = found["step"].isin([0, 512]) & (found["layer"] == 2)
    for row in found[(found["step"] == 2048) | steps_of_layer_2].to_dict("records"):
        features = pd.read_parquet(folder / row["folder"] / "features.parquet")
        alive = features[features["class"] != "dead"]
        texts = [f"`{row['model']}`", str(row["step"]), str(row["layer"]), f"{row['Mixed']:.3f}"]
        for rule in ("monosemantic", "cross"):
            is_one = is_bilingual(alive, rule, 0.05)
            aligned = f"{alive.loc[is_one, 'aligned'].mean():.0%}".replace("%", " %") if is_one.any() else ""
            texts += [f"{is_one.mean():.3f} ({bilingual_by_chance(alive, rule).mean():.3f})", aligned]
        rows.append(texts)
    header = ["LM", "step", "layer", "Mixed", "monosemantic (by chance)", "of these aligned"]
    return table([*header, "cross (by chance)", "of these aligned"], rows)


def trust(folder: Path) -> str:
    """Which claims survive, with half of each interval: the report's table without its last columns."""
    found = pd.read_csv(folder / "trust" / "tables" / "trust.csv")
    names = ("trained", "frozen decoder", "soft frozen decoder", "frozen encoder", "random weights", "control LM")
    columns = [*names, "stable features"]
    shown = found[found["control LM"].notna() & ~found["claim"].isin(["dead", "gamma"])]
    rows = []
    for row in shown.to_dict("records"):
        values = [(row[one], row[f"{one} ±"]) for one in columns]
        texts = ["" if pd.isna(value) else f"{value:.3f} ± {half:.3f}" for value, half in values]
        rows.append([row["claim"].replace("fvu", "FVU"), *texts])
    return table(["", *columns], rows)


def languages(folder: Path) -> str:
    """How far definitions of a feature's language agree, in the default cell: the report's own table."""
    lines = (folder / "languages" / "tables" / "languages.md").read_text(encoding="utf-8").splitlines()
    header, _, *rows = [line[2:-2].split(" | ") for line in lines if line.startswith("|")]
    return table(header, rows).replace("|  |", "| |")


def interventions(folder: Path) -> str:
    """Perplexity of step 512 under each kind of features: changes, and the mean over draws of random features."""
    found = pd.read_csv(folder / "interventions" / "interventions.csv", keep_default_na=False, na_values=[""])
    found = found.assign(control=found["control"].fillna(""))
    languages = ("en", "ja", "all")
    plain = found[found["kind"] == "none"].iloc[0]
    rows = [["nothing", "", "", *(f"{plain[f'perplexity_{one}']:.2f}" for one in languages), ""]]
    for kind in ("en", "ja", "bi", "aligned", "mixed", "all"):
        of_kind = found[found["kind"] == kind]
        changes = of_kind[[f"perplexity_{one}_change" for one in languages]]
        own, random = changes[of_kind["control"] == ""].iloc[0], changes[of_kind["control"] == "random"].mean()
        first = of_kind[of_kind["control"] == ""].iloc[0]
        amount = [str(int(first["features"])), f"{first['change']:.1%}".replace("%", " %")]
        random_text = "" if random.isna().any() else ", ".join(f"{value:.2f}" for value in random)
        rows.append([KINDS.get(kind, kind), *amount, *(f"{value:.2f}" for value in own), random_text])
    header = ["add to step 512", "features", "stream changed by", "PPL En", "PPL Ja", "PPL all"]
    return table([*header, "the same, random features"], rows)


def source_gain(folder: Path) -> str:
    """What taking each kind of features out changes of the source gain, beside the mean of the random draws."""
    found, rows = source_gains(folder, "source_gain"), []
    found = found[found["model"] == "embedded"]
    for kind, group in found.groupby("kind", sort=False):
        texts = [f"{row['value']:.3f}" if kind == "none" else changed(row) for _, row in group.iterrows()]
        features = "" if kind == "none" else f"{group['features'].iloc[0]:.0f}"
        rows.append([KINDS.get(kind, kind), features, *texts])
    return table(["taken out", "features", "source gain En→Ja", "source gain Ja→En"], rows)


def changed(row: pd.Series) -> str:
    """A change with 95 % over examples, the mean of the draws, the verdict and the place among the draws."""
    text = f"{row['change']:+.3f}, {row['low']:.3f} to {row['high']:.3f}"
    if pd.isna(row["random"]):
        return text
    return f"{text} ({row['random']:+.3f}): {row['verdict']}, {row['rank']:.0f} of {row['draws'] + 1:.0f}"


def ladders(folder: Path) -> str:
    """Perplexity of the shipped LMs, as their manifests say."""
    rows = []
    for name, what in LADDERS.items():
        shipped = json.loads((LMS / name / "ladder.json").read_text(encoding="utf-8"))["checkpoints"]
        *_, end = (of_step["perplexity"] for of_step in shipped.values())
        rows.append([f"`{name}`", what, ", ".join(shipped), f"{end['en']:.1f} / {end['ja']:.1f}"])
    return table(["`model=`", "what", "steps", "perplexity En / Ja at the end"], rows)
