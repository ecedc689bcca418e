"""Records what a library does in some steps of a training, for TensorBoard: TensorFlow's profiler, or JAX's."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

import keras


class Profiler(Protocol):
    """Records a profile."""

    def start(self, folder: str) -> None:
        """Begins to record into a folder."""

    def step(self, number: int) -> AbstractContextManager[Any]:
        """Returns what marks one step in the profile, in a `with` block."""

    def stop(self) -> None:
        """Ends the profile and writes it."""


def library_profiler() -> Profiler:
    """Returns the profiler of Keras' backend."""
    return JaxProfiler() if keras.backend.backend() == "jax" else TensorFlowProfiler()


class TensorFlowProfiler:
    """Records by `tf.profiler`."""

    def start(self, folder: str) -> None:
        """Begins to record into a folder."""
        import tensorflow as tf

        tf.profiler.experimental.start(folder)

    def step(self, number: int) -> AbstractContextManager[Any]:
        """Returns what marks one step in the profile."""
        import tensorflow as tf

        return tf.profiler.experimental.Trace("train", step_num=number, _r=1)

    def stop(self) -> None:
        """Ends the profile and writes it."""
        import tensorflow as tf

        tf.profiler.experimental.stop()


class JaxProfiler:
    """Records by `jax.profiler`."""

    def start(self, folder: str) -> None:
        """Begins to record into a folder."""
        import jax

        jax.profiler.start_trace(folder)

    def step(self, number: int) -> AbstractContextManager[Any]:
        """Returns what marks one step in the profile."""
        import jax

        return jax.profiler.StepTraceAnnotation("train", step_num=number)

    def stop(self) -> None:
        """Ends the profile and writes it."""
        import jax

        jax.profiler.stop_trace()
