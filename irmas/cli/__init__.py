"""Hydra behind the commands: the overrides of a command line, and the configurations that they make."""
