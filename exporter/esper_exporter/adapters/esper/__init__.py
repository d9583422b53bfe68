"""esper's own trainer, unmodified: where it is measured, and how that joins its events."""
