"""Two Prometheus replicas and a long-term store, tried with a simulated fleet of runs."""
