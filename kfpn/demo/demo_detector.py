"""Runs a trained detector on pictures that a user gives, and keeps what it found: to show it again takes no network."""

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from kfpn.data.augment import size_rule
from kfpn.data.decode_limits import MOST_PIXELS, decoding_at_most
from kfpn.data.image import decode_picture, load_picture
from kfpn.inference.detections import Detections
from kfpn.inference.inspect_pyramid import model_with_intermediates, view_image
from kfpn.inference.predict import predict
from kfpn.plotting.pyramid_page import draw_page
from kfpn.runs.load import load_submodels, load_trained_detector, require_trained
from kfpn.runs.workdir import Workdir

SMALLEST_SHOWN, LARGEST_SHOWN = 640, 1280
"""Pixels of the longer side of a picture on the page: a smaller one is enlarged, because labels would hide its objects."""


@dataclasses.dataclass(frozen=True)
class TriedPicture:
    """Holds a picture and all that a detector found in it.

    Attributes:
        path: of the image file.
        detections: of the picture, down to the least score that the detector gives.
    """

    path: Path
    detections: Detections

    @property
    def name(self) -> str:
        """Returns the name of the file, without its folder."""
        return self.path.name


class DemoDetector:
    """Holds a trained detector; one picture at a time goes through it, whichever threads ask.

    Args:
        workdir: work directory of `kfpn train`.
        max_pixels: most pixels of a picture.

    Raises:
        ValueError: if the folder is not a work directory with trained weights.
    """

    def __init__(self, workdir: str | os.PathLike, max_pixels: int = MOST_PIXELS) -> None:
        self.run = Workdir(workdir)
        require_trained(self.run)
        self.config = self.run.read_config()
        self.model = load_trained_detector(workdir, padded=True)
        self.max_pixels = max_pixels
        self._turn = threading.Lock()
        self._inspected: keras.Model | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the names of labels 0 .. K-1."""
        return self.model.class_names

    @property
    def thresholds(self) -> Sequence[float] | None:
        """Returns the least score of each label, of `kfpn evaluate --best-thresholds`; None where it was not run."""
        return getattr(self.model, "thresholds", None)

    def look(self, path: Path) -> TriedPicture:
        """Returns a picture with its detections.

        Raises:
            ValueError: as `kfpn.predict`, with the name of the file.
        """
        with self._reading(path):
            return TriedPicture(path, predict(self.model, path, min_score=0.0)[0])

    def look_at_all(
        self, paths: Sequence[Path], tried: Mapping[Path, TriedPicture]
    ) -> tuple[dict[Path, TriedPicture], list[str]]:
        """Looks at those pictures that were not looked at before.

        Args:
            paths: of image files.
            tried: what is known already.

        Returns:
            The pictures of all paths that can be read, in their order, and a sentence for each of the others.
        """
        known, errors = {}, []
        for path in paths:
            try:
                known[path] = tried[path] if path in tried else self.look(path)
            except ValueError as error:
                errors.append(str(error))
        return known, errors

    def draw_pyramid(self, picture: TriedPicture, min_score: float, page: Path) -> None:
        """Draws what `kfpn visualize` draws of a picture.

        Args:
            picture: to look into.
            min_score: detections below it are left out.
            page: the file to write, .png or .jpg.

        Raises:
            ValueError: if the file can't be read any more.
        """
        with self._reading(picture.path):
            if self._inspected is None:
                self._inspected = model_with_intermediates(load_submodels(self.run), self.config.model)
            image = decode_picture(picture.path, picture.name, size_rule(self.config.input))
            draw_page(view_image(self._inspected, self.config, image, self.class_names), page, min_score)

    def pixels(self, picture: TriedPicture) -> np.ndarray:
        """Returns a picture, (H, W, 3) uint8 RGB.

        Raises:
            ValueError: if the file can't be read any more.
        """
        with self._reading(picture.path):
            return load_picture(picture.path, picture.name)

    @contextlib.contextmanager
    def _reading(self, path: Path) -> Iterator[None]:
        """Waits for the turn of this thread; errors name the file as its user knows it, without the folder it is kept in."""
        with self._turn, decoding_at_most(self.max_pixels):
            try:
                yield
            except (ValueError, OSError) as error:
                raise ValueError(str(error).replace(str(path), path.name)) from error
            except (MemoryError, tf.errors.ResourceExhaustedError) as error:
                raise ValueError(
                    f"{path.name}: memory must be enough, got no more of it: make the picture smaller"
                ) from error


def chosen(detections: Detections, least: float | Sequence[float], labels: Sequence[int] = ()) -> Detections:
    """Returns those detections that a user wants to see.

    Args:
        detections: of a picture.
        least: the least score: one for all, or one for each label.
        labels: of the classes to show; none stands for all.
    """
    of_each = least if isinstance(least, int | float) else np.asarray(least)[detections.labels]
    keep = detections.scores >= of_each
    return detections[keep & np.isin(detections.labels, labels) if labels else keep]


def drawn_to_show(detections: Detections, image: np.ndarray) -> np.ndarray:
    """Draws detections on a picture in the size in which a page shows it.

    Args:
        detections: of the picture.
        image: (H, W, 3) uint8 RGB.

    Returns:
        (H', W', 3) uint8 RGB, whose longer side has 640 to 1280 pixels.
    """
    size = np.array(image.shape[:2])
    zoom = np.clip(size.max(), SMALLEST_SHOWN, LARGEST_SHOWN) / size.max()
    height, width = (int(side) for side in np.maximum(1, np.round(size * zoom)))
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0))
    boxes = detections.boxes * (np.tile([height, width], 2) / np.tile(size, 2)).astype(np.float32)
    # The masks are pasted anew, in the new size.
    return dataclasses.replace(detections, boxes=boxes, image_size=(height, width), masks=None).draw(resized)
