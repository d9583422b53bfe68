"""The machine and this process: CPU, memory, disks, limits, read on threads of their own."""
