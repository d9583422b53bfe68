"""How a run ends, and what is done so that its end is seen."""
