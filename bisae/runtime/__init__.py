"""Files, errors, processes and devices: used by all other packages, and imports none of them."""
