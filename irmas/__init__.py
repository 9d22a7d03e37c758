"""Tunes a predominant-instrument recogniser for IRMAS with sweeps on a Slurm cluster."""

__version__ = "0.1.0"
