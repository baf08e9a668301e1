"""Measures of features: language, monosemanticity, alignment, context, and lineage over checkpoints."""
