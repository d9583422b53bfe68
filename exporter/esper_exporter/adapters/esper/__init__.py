"""esper's own trainer, unmodified: measured from outside, joined with its events."""
