"""A W&B report of a grid."""
