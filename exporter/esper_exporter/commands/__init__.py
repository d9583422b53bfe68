"""The commands of ``esper-exporter``: each module defines one with its arguments."""
