"""The description of a metric that `evaluate` asks for."""

import datasets
import evaluate


def info(metric: type[evaluate.Metric], *columns: str) -> evaluate.MetricInfo:
    """The description of a metric that reads texts in `columns`; its docstring is the text."""
    texts = {name: datasets.Value("string") for name in columns}
    text = metric.__doc__
    return evaluate.MetricInfo(text, citation="", features=datasets.Features(texts), inputs_description=text)
