"""Check one by one what a machine and its Prometheus need to monitor a run."""
