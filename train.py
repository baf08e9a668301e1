"""Train the SAEs of one LM checkpoint: python train.py [key=value ...], or -m for a sweep; --help lists the keys."""

from bisae.cli.train import main

if __name__ == "__main__":
    main()
