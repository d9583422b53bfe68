"""Prometheus, Alertmanager and Grafana as programs of this machine, without containers."""
