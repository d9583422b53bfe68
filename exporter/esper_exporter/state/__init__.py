"""What is known of a run: the Sanctum snapshot, and the aggregator that fills it."""
