"""How far a grid is."""
