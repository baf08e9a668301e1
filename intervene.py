"""Intervene: python intervene.py [recipient=512] [kind=[en,ja,bi]] [coefficient=0.3] [key=value ...]; see --help."""

from bisae.cli.intervene import main

if __name__ == "__main__":
    main()
