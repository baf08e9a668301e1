"""SAEs of other libraries as cells, and cells as SAEs of other libraries: python -m bisae convert."""
