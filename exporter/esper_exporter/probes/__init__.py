"""What the exporter measures itself, beside what it is told."""
