"""Reads the frames of video files one after another, upright, and says where a damaged file ends."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from kfpn.data.decode_limits import require_pixels_at_most
from kfpn.data.mistaken_files import HEAD, mistaken_for

VIDEO_ENDINGS = frozenset(
    (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv")
)  # fmt: skip
"""By its ending a file is a video, in lower case with the dot."""
USUAL_RATE = Fraction(25)
"""Frames a second of a file that does not say."""
_SLACK = 0.5  # seconds: the lengths that files give are not exact
_HD, _UNSPECIFIED, _BT709 = 720, 2, 1  # what H.264 numbers the matrices of colours


@dataclass(frozen=True)
class VideoFacts:
    """Holds what a video file says of itself.

    Attributes:
        rate: frames a second, on average.
        seconds: its length; None: not known.
        count: of its frames, about; None: not known.
    """

    rate: Fraction
    seconds: float | None
    count: int | None


@dataclass(frozen=True)
class Frame:
    """Holds a frame of a video.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, turned upright as players show it.
        number: counts the frames that could be read, from 0.
        seconds: from the beginning of the video.
        facts: of its video.
    """

    pixels: np.ndarray
    number: int
    seconds: float
    facts: VideoFacts


class EndedEarly(ValueError):
    """Tells that a video could be read in part only. The text says where it ended."""


def is_video_name(name: str | os.PathLike) -> bool:
    """Tells whether a file's name is that of a video: it has one of the endings, in any case."""
    return Path(name).suffix.lower() in VIDEO_ENDINGS


def require_pyav() -> Any:
    """Returns the module of PyAV.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError(f'PyAV must be installed for videos, got none ({error}): pip install "kfpn[video]"') from error
    return av


def read_frames(path: Path) -> Iterator[Frame]:
    """Yields the frames of a video file, one at a time in memory.

    Parts that can't be decoded are passed over.

    Raises:
        EndedEarly: after the last frame, if the file ends before its time or parts of it were passed over.
        ValueError: naming the file, if no frame can be read, or frames have too many pixels.
    """
    av = require_pyav()
    if not path.is_file():
        raise ValueError(f"{path}: {'is not a file' if path.exists() else 'does not exist'}")
    with contextlib.ExitStack() as opened:
        try:
            file = opened.enter_context(open(path, "rb"))
            if mistaken := mistaken_for(file.read(HEAD)):
                raise ValueError(f"{path}: {mistaken}")
            file.seek(0)
            # An open file, not its path: FFmpeg would take a colon in a name for a protocol, and follow what a file refers to.
            container = opened.enter_context(av.open(file, mode="r", metadata_errors="replace"))
        except (av.FFmpegError, OSError) as error:
            raise ValueError(
                f"{path}: can't be read as a video ({_reason(error)}): it is damaged, not complete, or no video: copy it anew"
            ) from error
        yield from _VideoFile(path, container).frames()


class _VideoFile:
    """Decodes an opened file."""

    def __init__(self, path: Path, container: Any):
        self._path, self._container, self._errors = path, container, require_pyav().FFmpegError
        self._stream = container.streams.best("video")
        if self._stream is None:
            raise ValueError(f"{path}: must hold a video, got a file without one")
        self._stream.thread_type = "AUTO"
        self._fault_count, self._why, self._cut_off = 0, "", ""
        rate = self._stream.average_rate or self._stream.guessed_rate or USUAL_RATE
        seconds = self._length()
        self.facts = VideoFacts(rate, seconds, self._stream.frames or (round(seconds * rate) if seconds else None))

    def frames(self) -> Iterator[Frame]:
        """Yields the frames, then raises what `read_frames` says."""
        number, seconds, stream = 0, 0.0, self._stream
        begin = None if stream.start_time is None else float(stream.start_time * stream.time_base)
        for frame in self._decoded():
            try:
                require_pixels_at_most(frame.width, frame.height)
                pixels = _upright_pixels(frame)
            except (self._errors, ValueError) as error:
                raise ValueError(f"{self._path}: {_reason(error)}") from error
            if frame.time is not None:
                begin = frame.time if begin is None else begin
                seconds = max(seconds, frame.time - begin)
            elif number:
                seconds += float(1 / self.facts.rate)
            yield Frame(pixels, number, seconds, self.facts)
            number += 1
        self._require_all(number, seconds)

    def _decoded(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (self._errors, OSError) as error:
                self._cut_off = _reason(error)
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except self._errors as error:
                self._fault_count += 1
                self._why = _reason(error)
                continue
            yield from frames

    def _require_all(self, count: int, seconds: float) -> None:
        why = self._cut_off or self._why
        because = f" ({why})" if why else ""
        if not count:
            raise ValueError(f"{self._path}: holds no frame that can be read{because}")
        length = self.facts.seconds
        place = f"frame {count - 1}, at {seconds:.1f}{f' of {length:.1f}' if length else ''} seconds"
        slack = max(_SLACK, float(2 / self.facts.rate))
        if self._cut_off or (length and seconds + float(1 / self.facts.rate) + slack < length):
            raise EndedEarly(
                f"{self._path}: ended at {place}; what was read is kept: the file is damaged or not complete{because}"
            )
        if self._fault_count:
            raise EndedEarly(
                f"{self._path}: {self._fault_count} parts could not be decoded and were passed over{because}; it ended at {place}; "
                "what was read is kept"
            )

    def _length(self) -> float | None:
        """Returns the seconds that the file says its video has; None where it does not say."""
        stream, container = self._stream, self._container
        if stream.duration:
            return float(stream.duration * stream.time_base)
        if tag := stream.metadata.get("DURATION"):  # of Matroska: 00:00:03.000000000
            hours, minutes, seconds = (float(part) for part in tag.split(":"))
            return 3600 * hours + 60 * minutes + seconds
        # The length of a file with sound may be that of its sound.
        return container.duration / 1e6 if container.duration and len(container.streams) == 1 else None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _upright_pixels(frame: Any) -> np.ndarray:
    """Returns the pixels of a decoded frame as players show them: (H, W, 3) uint8 RGB."""
    # Most files of high definition do not say that they have its colours.
    is_plain_hd = frame.colorspace == _UNSPECIFIED and min(frame.width, frame.height) >= _HD
    colours = _BT709 if is_plain_hd else None
    rgb = frame.reformat(format="rgb24", src_colorspace=colours, src_color_range=frame.color_range)
    # The rotation is counterclockwise, as that of NumPy.
    return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), round(frame.rotation / 90)))
