"""Computes with boxes, anchors, levels and RoIs: pure functions of tensors in keras.ops."""
