"""Data on disk -> tensors: excerpts, front end, feature cache, splits."""
