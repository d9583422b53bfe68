"""Faults in a simulated fleet, and whether a person hears of each exactly once."""
