"""What goes out: the catalogue, the value table and the exposition formats."""
