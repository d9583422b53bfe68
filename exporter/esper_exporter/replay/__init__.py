"""Replay recorded events from files, pipes and growing files, in recorded time or at full speed."""
