"""One training run as a folder on disk: the only place that knows its file names and metric tags."""
