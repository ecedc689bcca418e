"""Shares the training between devices and processes (tf.distribute)."""
