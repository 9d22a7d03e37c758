"""A trained net at work: sound of any length -> probabilities of instruments."""
