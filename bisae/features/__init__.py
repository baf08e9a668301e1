"""Which features an SAE has: where each fires, its language, its meaning, its alignment between languages.

`feature_language` and `monosemanticity` describe one feature. Their names and arguments stay stable.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bisae.features.measures.language import feature_language
    from bisae.features.measures.monosemanticity import monosemanticity

__all__ = ["feature_language", "monosemanticity"]


def __getattr__(name: str) -> Any:
    """Import what `__all__` names when it is first used: NumPy and SciPy are slow to import."""
    if name == "feature_language":
        from bisae.features.measures.language import feature_language

        return feature_language
    if name == "monosemanticity":
        from bisae.features.measures.monosemanticity import monosemanticity

        return monosemanticity
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
