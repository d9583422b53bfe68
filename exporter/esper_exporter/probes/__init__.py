"""What the exporter measures itself, beside the events that it receives."""
