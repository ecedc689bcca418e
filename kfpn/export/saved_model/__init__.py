"""Writes SavedModels for TensorFlow Serving."""
