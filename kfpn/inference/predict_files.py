"""Detects objects in images and videos, and writes annotated pictures and videos and one file of detections."""

import dataclasses
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
from tqdm import tqdm

from kfpn.config.run import Config, InputConfig
from kfpn.data.jpeg_fraction import DecodedImage, as_decoded
from kfpn.evaluation.detect import detect_image
from kfpn.evaluation.detection_limit import limit_line
from kfpn.evaluation.source_pass import detect_function
from kfpn.inference.detections import Detections, Labelling, LeastScore
from kfpn.inference.image_pyramid import ImagePyramid
from kfpn.inference.predict_output import DrawnResult, PredictOutput
from kfpn.inference.user_inputs import UnreadInput, UserInput, UserPicture, read_ahead, read_inputs

LOGGER = logging.getLogger("kfpn")
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"


@dataclasses.dataclass
class PredictTally:
    """Counts what was read and found.

    Attributes:
        objects: detections.
        images, frames: that were read.
        of_images, of_videos: inputs in all.
        videos: of which at least a frame was read.
        cut: images and frames whose detections the limit cut.
        faults: inputs that could not be read, or in part only.
    """

    of_images: int
    of_videos: int
    objects: int = 0
    images: int = 0
    frames: int = 0
    videos: int = 0
    cut: int = 0
    faults: int = 0

    def line(self) -> str:
        """Returns the counts as one line of text."""
        parts = [f"objects: {self.objects}"]
        if self.of_images or not self.of_videos:
            parts.append(f"images: {self.images} of {self.of_images}")
        if self.of_videos:
            parts.append(f"videos: {self.videos} of {self.of_videos}, {self.frames} frames")
        return "; ".join(parts)


def predict_files(
    model: keras.Model,
    config: Config,
    inputs: Sequence[UserInput],
    output: Path,
    min_score: LeastScore,
    pyramid: ImagePyramid | None = None,
) -> PredictTally:
    """Writes an annotated PNG of each image and an MP4 of each video, with masks where the model has any, and `detections.json`.

    That is a COCO results list whose rows also have `category_name` and `file_name` and, of videos, `frame` and `time`. Its image
    ids count images and frames from 1. What can't be read is named on stderr, and the others go on. Files are read and decoded while
    the network runs. An error or Ctrl-C in between leaves what was found so far.

    Args:
        model: from `load_detector(workdir, padded=True)`.
        config: of the run; its `input` says how images are resized.
        inputs: of `find_inputs`.
        output: folder, made if it is not there.
        min_score: detections below it are left out: one score, or one for each label.
        pyramid: of the model, to look at each image in several sizes or in tiles; None: at the run's own size.

    Raises:
        ValueError: if `output` can't be written.
        OSError: naming the file, if one can't be written.
    """
    detect = _detector(model, config, pyramid)
    labelling = Labelling(model.class_names, min_score, model.category_ids, config.model.pasting)
    limit = config.model.max_detections

    def look(image: DecodedImage) -> Detections:
        return labelling.detections(detect(image), as_decoded(image).size)

    tally = write_pictures(look, pyramid.largest if pyramid else config.input, inputs, output, limit)
    if tally.cut:
        LOGGER.warning("%s", limit_line(tally.cut, tally.images + tally.frames, limit, "--max-detections"))
    return tally


def write_pictures(
    look: Callable[[DecodedImage], DrawnResult],
    rule: InputConfig,
    inputs: Sequence[UserInput],
    output: Path,
    limit: int,
) -> PredictTally:
    """Writes a picture or video of each input and `detections.json`, as `predict_files` says, and returns what was found.

    Args:
        look: what is found in an image.
        rule: makes the largest image of each, see `decode_picture`.
        inputs, output: as `predict_files` takes them.
        limit: the most that is found in an image.
    """
    of_videos = sum(one.kind == "video" for one in inputs)
    tally = PredictTally(len(inputs) - of_videos, of_videos)
    with (
        PredictOutput(output, inputs) as written,
        tqdm(total=len(inputs), desc="predict", unit=" images", leave=False, bar_format=_BAR) as bar,
    ):
        for one in read_ahead(read_inputs(inputs, rule)):
            if isinstance(one, UnreadInput):
                tally.faults += 1
                tqdm.write(f"kfpn: {'warning' if one.in_part else 'error'}: {one.line}", file=sys.stderr)
            else:
                best = look(one.image)
                written.add(one, best)
                tally.objects += len(best)
                tally.cut += len(best) >= limit
                _count_picture(tally, one, bar)
            bar.update(not (isinstance(one, UnreadInput) and one.in_part))
    return tally


def _detector(
    model: keras.Model, config: Config, pyramid: ImagePyramid | None
) -> Callable[[DecodedImage], dict[str, Any]]:
    if pyramid is not None:
        return pyramid.detect_image
    detect = detect_function(model)
    return lambda image: detect_image(detect, image, config.input)


def _count_picture(tally: PredictTally, one: UserPicture, bar: tqdm) -> None:
    """Counts a picture; the bar learns at the first frame of a video how many will come."""
    if one.frame is None:
        tally.images += 1
        return
    tally.frames += 1
    if one.frame.number == 0:
        tally.videos += 1
        bar.total += max(0, (one.frame.facts.count or 1) - 1)
