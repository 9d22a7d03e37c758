"""Trained nets applied to sound of any length: probabilities of instruments over time."""
