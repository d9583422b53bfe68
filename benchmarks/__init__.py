"""Measurements side by side in one run: the exporter beside prometheus_client."""
