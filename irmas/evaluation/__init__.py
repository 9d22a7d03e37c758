"""How good a trained net is: IRMAS's test protocol, from the data to figures with intervals."""
