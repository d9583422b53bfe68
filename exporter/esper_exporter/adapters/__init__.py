"""Adapters: a trainer's own hooks measured by the probe, one package or module a trainer."""
