"""Corpora: documents by split and language, and the token sequences that an LM reads of them, languages 1:1."""
