"""The catalogue's tables, one module a domain."""
