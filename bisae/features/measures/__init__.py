"""What is measured of a feature."""
