"""The commands: `python -m bisae <command> [key=value ...]`."""
