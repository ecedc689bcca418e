"""Runs functions of TensorFlow as Python does: graphs of the tests' small networks take far longer to build than to run."""

import contextlib

import tensorflow as tf


@contextlib.contextmanager
def eagerly():
    """Lets `tf.function` call its Python function, in a `with` block. Data pipelines are graphs all the same."""
    with _switched(True):
        yield


@contextlib.contextmanager
def graphs():
    """Lets `tf.function` build graphs, as it does for users, in a `with` block of a file whose other tests run eagerly."""
    with _switched(False):
        yield


@contextlib.contextmanager
def _switched(on):
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(on)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
