"""What a machine and its Prometheus need for a run to be watched, checked one by one."""
