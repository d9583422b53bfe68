"""The browser page at `/`."""
