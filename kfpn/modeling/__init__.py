"""Builds the network: each file holds one part of the paper, and `detector.py` puts them together."""
