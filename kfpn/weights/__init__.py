"""Reads weights that others trained, and gives them to a detector."""
