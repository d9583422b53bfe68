"""GPU vitals: a separate thread reads them from the driver; a scrape never does."""
