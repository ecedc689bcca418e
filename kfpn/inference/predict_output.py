"""Writes what was detected: annotated pictures and videos, and the file of detections, row after row."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from PIL import Image

from kfpn.config.checks import require_local
from kfpn.inference.earlier_output import is_own_picture, png_marks, require_own_list
from kfpn.inference.images_of_user import free_path, name_key
from kfpn.inference.user_inputs import UserInput, UserPicture
from kfpn.inference.video_writer import VideoWriter
from kfpn.runs.atomic_files import name_aside


class DrawnResult(Protocol):
    """What was found in an image, as `kfpn.Detections` has it."""

    def __len__(self) -> int:
        """Returns the number of objects."""

    def draw(self, image: np.ndarray) -> np.ndarray:
        """Returns the image with what was found."""

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Returns rows of a COCO results list."""


class RowsFile:
    """Writes a JSON list row after row, aside, and renames it when it is closed: the list need not be in memory.

    Args:
        path: the file.
    """

    def __init__(self, path: Path):
        # Not `name_aside`, which is the name that pictures have while this file is open.
        self._path, self._aside, self._is_empty = path, path.with_name(f"{path.name}.{os.getpid()}.tmp"), True
        self._file = open(self._aside, "w", encoding="utf-8")  # noqa: SIM115  it is closed by `close`

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row, in the form that `json.dumps(rows, indent=1)` has."""
        with _named_errors(self._path):
            self._file.write(("[\n " if self._is_empty else ",\n ") + json.dumps(row, indent=1).replace("\n", "\n "))
        self._is_empty = False

    def close(self) -> None:
        """Ends the list, and puts the file in its place.

        Raises:
            OSError: naming the file.
        """
        with _named_errors(self._path), self._file:
            self._file.write("[]\n" if self._is_empty else "\n]\n")
        with _named_errors(self._path):
            os.replace(self._aside, self._path)


class PredictOutput:
    """Is a folder with an annotated picture or video of each input, and `detections.json`.

    What an earlier `kfpn predict` wrote there is replaced; other files stay. It is a context manager: an error or Ctrl-C within its block leaves what was found before, in files that are complete.

    Args:
        folder: made if it is not there.
        inputs: all that may come.

    Raises:
        ValueError: if the folder can't be written, or has a `detections.json` of something else.
    """

    def __init__(self, folder: Path, inputs: Sequence[UserInput]):
        require_local("output", folder)
        taken = {name_key(Path(one.name)) for one in inputs if one.kind != "address"}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            require_own_list(folder / "detections.json")
            self._paths = {
                one: free_path(folder, one.stem, ".mp4" if one.kind == "video" else ".png", taken, is_own_picture)
                for one in inputs
            }
            self._rows = RowsFile(folder / "detections.json")
        except OSError as error:
            why = str(error) if folder.is_dir() or not folder.exists() else "it is a file"
            raise ValueError(f"output must be a folder that can be written, got {str(folder)!r}: {why}") from error
        self._video: VideoWriter | None = None
        self._video_source: UserInput | None = None

    def add(self, one: UserPicture, detections: DrawnResult) -> None:
        """Writes a picture with its detections.

        Raises:
            OSError: naming the file, if it can't be written.
        """
        drawn, place = detections.draw(one.pixels), {}
        if one.source is not self._video_source:
            self._close_video()
        if one.frame is None:
            _save_picture(drawn, self._paths[one.source])
        else:
            if self._video is None:
                self._video = VideoWriter(self._paths[one.source], one.frame.facts.rate)
                self._video_source = one.source
            self._video.add(drawn, one.frame.seconds)
            place = {"frame": one.frame.number, "time": round(one.frame.seconds, 3)}
        for row in detections.to_coco(one.image_id):
            self._rows.add({**row, "file_name": one.source.name, **place})

    def _close_video(self) -> None:
        video, self._video, self._video_source = self._video, None, None
        if video is not None:
            video.close()

    def __enter__(self) -> "PredictOutput":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        later: OSError | None = None
        for close in (self._close_video, self._rows.close):
            try:
                close()
            except OSError as fault:
                later = later or fault
        if later and error is None:  # else the first error is the one to be told of
            raise later


def _save_picture(pixels: np.ndarray, path: Path) -> None:
    """Writes a picture aside and renames it, so that Ctrl-C leaves no part of one."""
    aside = name_aside(path)
    try:
        with _named_errors(path):
            Image.fromarray(pixels).save(aside, "png", pnginfo=png_marks())
            os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # that of a full disk names no file
        raise OSError(f"{path} can't be written: {error.strerror or error}") from error
