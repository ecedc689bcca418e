"""Writes pictures into a video file, each at its time."""

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from kfpn.inference.earlier_output import MADE_BY
from kfpn.inference.video_reader import require_pyav

CODECS = ("libx264", "libopenh264", "mpeg4")
"""Encoders of PyAV, the best first: builds of it differ in which they have."""
_TICKS = 60_000  # of a second: a whole number for all usual rates, also 30000/1001; MPEG-4 has at most 65535
_BT709, _LIMITED_RANGE = 1, 1


class VideoWriter:
    """Writes an MP4 file of H.264 (of MPEG-4, where PyAV lacks it), without sound.

    The file is complete when it is closed.

    Args:
        path: the file.
        rate: frames a second, about.

    Raises:
        OSError: naming the file, if it can't be written.
    """

    def __init__(self, path: Path, rate: Fraction):
        self._av = require_pyav()
        self._path, self._rate, self._last = path, rate, -1
        self._stream: Any = None
        self._file = open(path, "wb")  # noqa: SIM115  PyAV would take a colon in a name for a protocol
        self._container = self._av.open(self._file, mode="w", format="mp4")
        self._container.metadata["comment"] = MADE_BY

    def add(self, picture: np.ndarray, seconds: float) -> None:
        """Adds a picture.

        Args:
            picture: (H, W, 3) uint8 RGB. The first one decides the size of the video, its sides rounded up to even numbers; others are
                resized to it.
            seconds: when it is shown, from the beginning.
        """
        even = np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")
        stream = self._stream or self._open_stream(*even.shape[:2])
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24").reformat(
            stream.width, stream.height, "yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE
        )
        self._last = max(round(seconds * _TICKS), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        with self._named_errors():
            self._encode(frame)

    def close(self) -> None:
        """Writes what is left, and closes the file."""
        with self._named_errors(), self._file:
            try:
                if self._stream is not None:
                    self._encode(None)
            finally:
                self._container.close()

    def _open_stream(self, height: int, width: int) -> Any:
        codec = next(name for name in CODECS if self._has(name))
        self._stream = stream = self._container.add_stream(codec, rate=self._rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, _TICKS)
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        context.options = {"crf": "20", "preset": "veryfast"} if codec == "libx264" else {}
        if codec != "libx264":
            context.bit_rate = round(0.15 * width * height * float(self._rate))
        return stream

    def _has(self, codec: str) -> bool:
        try:
            self._av.codec.Codec(codec, "w")
        except ValueError:
            return False
        return True

    def _encode(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    @contextlib.contextmanager
    def _named_errors(self) -> Any:
        try:
            yield
        except (self._av.FFmpegError, OSError) as error:
            raise OSError(f"{self._path} can't be written: {getattr(error, 'strerror', None) or error}") from error
