"""What knows Hydra: the overrides of a command line, and the configurations that they make."""
