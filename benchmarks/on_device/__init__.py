"""The stages of benchmarks/device.py. None imports Hydra, Lightning or transformers unless they are installed."""

from on_device.bare import stand_in

STAND_INS = stand_in()  # in every process that runs a stage, before bisae
