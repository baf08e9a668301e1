"""A grid of SAEs: what it takes, the commands that run it, how far it is."""
