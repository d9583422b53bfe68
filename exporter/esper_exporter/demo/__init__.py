"""The demo: a small training and bundled recordings, to try the exporter without a cluster."""
