"""The products of sparse codes with dense matrices."""
