"""Computes stages in the forms that TensorFlow's own kernels are fastest at, for graphs that XLA does not compile as a whole."""
