"""Run this machine's Prometheus, Alertmanager and Grafana, without containers."""
