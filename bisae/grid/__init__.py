"""A grid of SAEs: its cost, the commands that train it, and its progress."""
