"""Reports on analysed cells: tables, figures, and a browser of features."""
