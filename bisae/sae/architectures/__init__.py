"""The kinds of sparse autoencoder."""
