"""Trials on a real Slurm: slurmctld, slurmd and munge in namespaces of their own."""
