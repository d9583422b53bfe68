"""Writes the dashboards of ``grafana/dashboards``: dataclasses in, Grafana's classic JSON out."""
