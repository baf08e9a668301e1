"""What is measured of SAEs and LMs."""

RECONSTRUCTION = ("fvu", "r2", "fvu_raw", "l0", "cosine", "dead", "gamma")  # see bisae.metrics.reconstruction
NATS = "cross_entropy"  # family of columns: nats per token in each language
