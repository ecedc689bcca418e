"""The network, one part of the paper a file; `detector.py` puts them together."""
