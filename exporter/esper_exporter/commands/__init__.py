"""The commands of ``esper-exporter``: a module adds one, with its arguments and what it starts."""
