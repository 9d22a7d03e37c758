"""Rendered music in the layout of IRMAS, for trials and tests."""
