"""Feeding recorded events: files, pipes and growing files, in recorded time or at full speed."""
