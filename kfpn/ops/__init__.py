"""Computes with boxes, anchors, levels and RoIs: pure functions of tensors in keras.ops."""

# Keras comes first. Its import makes kfpn import the modules that define layers (kfpn.runs.registration), and none of this
# package's own may be half imported then.
import keras  # noqa: F401
