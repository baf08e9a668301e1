"""Analyse trained cells: python analyze.py space=shipped [runs=<folder, glob or W&B ids>] [key=value ...]."""

from bisae.cli.analyze import main

if __name__ == "__main__":
    main()
