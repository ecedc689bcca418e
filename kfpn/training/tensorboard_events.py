"""Writes the scalars of a run as TensorBoard events: by TensorFlow where it is the backend, and else without it."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import keras

from kfpn.data.annotation_checks import LOGGER


class Events(Protocol):
    """Takes the scalars of a run."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of a step.

        Raises:
            OSError, or an error of TensorFlow: if they can't be written.
        """

    def close(self) -> None:
        """Ends the file."""


def open_events(folder: Path) -> Events:
    """Returns what writes events into a new file of a folder, which need not be there.

    Args:
        folder: of the events.
    """
    if keras.backend.backend() == "tensorflow":
        return TensorFlowEvents(folder)
    try:
        return PlainEvents(folder)
    except ModuleNotFoundError as error:
        LOGGER.warning(f"no TensorBoard events are written, because {error.name} is missing: pip install tensorboard")
        return NoEvents()


class TensorFlowEvents:
    """Writes events by `tf.summary`; arguments as for `open_events`."""

    def __init__(self, folder: Path):
        import tensorflow as tf

        # The path is passed as bytes, because TensorFlow refuses text for file names that are not UTF-8.
        self._writer: Any = tf.summary.create_file_writer(os.fsencode(folder))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of a step."""
        import tensorflow as tf

        with self._writer.as_default(step=step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()


class PlainEvents:
    """Writes events with the classes of the package tensorboard, which does not import TensorFlow for it.

    The file is made with the first event: a folder that can't be written costs the events, and not the run.

    Args:
        folder: see `open_events`.

    Raises:
        ModuleNotFoundError: if tensorboard is not installed.
    """

    def __init__(self, folder: Path):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary, self._records = event_pb2.Event, summary_pb2.Summary, RecordWriter
        self._folder = folder
        self._writer: Any = None

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of a step."""
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time_ns() // 10**6:014d}.{socket.gethostname()}.{os.getpid()}"
            self._writer = self._records((self._folder / name).open("ab"))
            self._put(file_version="brain.Event:2")
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._put(step=step, summary=self._summary(value=values))
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.close()

    def _put(self, **content: Any) -> None:
        self._writer.write(self._event(wall_time=time.time(), **content).SerializeToString())


class NoEvents:
    """Writes nothing, where the package tensorboard is missing."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""
