"""Computes with boxes, anchors, levels and RoIs: pure functions of tensors in keras.ops."""

# The import of Keras makes kfpn register its layers (kfpn.runs.registration): that must not find a module here half done.
import keras  # noqa: F401
