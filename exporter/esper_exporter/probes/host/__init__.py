"""Vitals of the machine and this process: CPU, memory, disks, limits, read on separate threads."""
