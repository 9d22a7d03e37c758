"""Hydra's side: the overrides of a command line, and the configurations that they compose."""
