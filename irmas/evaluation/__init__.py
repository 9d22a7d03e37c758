"""Quality of a trained net by IRMAS's test protocol, from the data to metrics with intervals."""
