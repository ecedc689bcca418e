"""Builds the network: each file holds one part of the paper, and `detector.py` puts them together."""

# The import of Keras makes kfpn register its layers (kfpn.runs.registration): that must not find a module here half done.
import keras  # noqa: F401
