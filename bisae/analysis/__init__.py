"""Analyse trained cells: describe the features of each SAE, sum them up, follow them over checkpoints."""
