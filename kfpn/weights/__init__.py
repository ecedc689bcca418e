"""Weights trained elsewhere: read, understood and given to a detector."""
