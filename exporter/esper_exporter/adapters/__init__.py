"""Adapters: the probe in trainers' own hooks, one package or module a trainer."""
