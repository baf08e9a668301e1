"""Trained cells on disk: written, found, read back."""
