"""Builds the network: each file holds one part of the paper, and `detector.py` puts them together."""

# Keras comes first. Its import makes kfpn import the modules that define layers (kfpn.runs.registration), and none of this
# package's own may be half imported then.
import keras  # noqa: F401
