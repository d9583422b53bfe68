"""GPUs: what their driver tells, read on a thread of its own and never by a scrape."""
