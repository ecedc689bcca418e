"""Computes the steps of a run by a library that Keras runs on: TensorFlow, or JAX."""
