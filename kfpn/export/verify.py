"""Whether an export gives what the Keras model gives, measured on images of two sizes and in two batch sizes."""

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from kfpn.config.run import Config
from kfpn.data.pipeline import prepare_image
from kfpn.data.toy_scenes import scene
from kfpn.evaluation.detect import to_original
from kfpn.export.saved_model.graph_images import resize
from kfpn.export.trained import TrainedDetector, open_trained
from kfpn.modeling.detector import inference_model

BOX_LIMIT = 0.05
"""Largest difference of a side, in pixels of the network's input."""
SCORE_LIMIT = 1e-3
"""Largest difference of a score."""
LEVEL_LIMIT = 2
"""Largest difference of a resized pixel from Pillow's, of 255 levels: the two round halves differently, per axis."""
UNMATCHED_LIMIT = 0.01
"""Share of the proposals that may have no counterpart: there are hundreds, and some overlap by nearly the NMS
threshold, where the last bit of a number decides which one stays."""


class Different(ValueError):
    """An export that does not give what the Keras model gives."""


class Difference(NamedTuple):
    """What two sets of rows differ by.

    Attributes:
        box: float, largest difference of a side of two boxes that belong together, pixels of the network's input.
        score: float, largest difference of their scores.
        unmatched: int, rows of either set that have no counterpart within the limits.
        rows: int, rows of the first set.
        proposals: bool, whether they are proposals.
    """

    box: float = 0.0
    score: float = 0.0
    unmatched: int = 0
    rows: int = 0
    proposals: bool = False

    def plus(self, other: "Difference") -> "Difference":
        """Returns the difference over both."""
        return Difference(
            max(self.box, other.box),
            max(self.score, other.score),
            self.unmatched + other.unmatched,
            self.rows + other.rows,
            self.proposals or other.proposals,
        )


def verify_saved_model(workdir: str | os.PathLike, path: str | os.PathLike) -> dict[str, Difference]:
    """Compares an exported model with the Keras detector of a work directory, and prints what they differ by.

    Args:
        workdir: that the export was made from.
        path: the SavedModel, a version's folder.

    Returns:
        The largest differences of each signature.

    Raises:
        ValueError: if it is no SavedModel of kfpn.
        Different: if it differs by more than `BOX_LIMIT`, `SCORE_LIMIT` or `LEVEL_LIMIT`.
    """
    return verify_trained(open_trained(workdir), Path(path))


def verify_trained(trained: TrainedDetector, path: Path) -> dict[str, Difference]:
    """Does what `verify_saved_model` does, with a detector that is loaded already."""
    if not tf.saved_model.contains_saved_model(str(path)):
        raise ValueError(f"{path} must be a SavedModel, got a folder without one")
    signatures = tf.saved_model.load(str(path)).signatures
    reference = Reference(trained)
    found: dict[str, Difference] = {}
    for images in image_batches(trained.config):
        wanted = reference(images)
        for name, signature in signatures.items():
            difference = _difference(trained, signature, images, wanted)
            if difference is not None:
                found[name] = found.get(name, Difference()).plus(difference)
    if not found:
        raise ValueError(f"{path} must have a signature that kfpn knows, got {', '.join(signatures) or 'none'}")
    for name, difference in found.items():
        print(
            f"verify {name}: {difference.rows} rows; largest differences: box {difference.box:.2g} px, "
            f"score {difference.score:.2g}; without counterpart: {difference.unmatched}"
        )
    print(
        f"verify resizing: largest difference from Pillow's {reference.level} of 255 levels, in {reference.share:.2%}"
    )
    _require_equal(found)
    if reference.level > LEVEL_LIMIT:
        raise Different(f"resized images must be Pillow's within {LEVEL_LIMIT} of 255 levels, got {reference.level}")
    return found


def _require_equal(found: dict[str, Difference]) -> None:
    for name, difference in found.items():
        allowed = UNMATCHED_LIMIT * difference.rows if difference.proposals else 0
        if difference.unmatched > allowed:
            raise Different(
                f"{name} must give boxes within {BOX_LIMIT} pixels and scores within {SCORE_LIMIT} of the Keras model, "
                f"got {difference.unmatched} of {difference.rows} rows without counterpart"
            )
    if not sum(difference.rows for difference in found.values()):
        raise Different("the detector must find something in the test images, got nothing to compare")


def image_batches(config: Config) -> Iterator[list[np.ndarray]]:
    """Yields batches of pictures (H, W, 3) uint8: one and two of a size that the network takes as it is, one and two of
    another that is resized, and one of both sizes.
    """
    short, longer = config.input.short_side, min(config.input.long_side, config.input.short_side * 4 // 3)
    sizes = ((short, longer), (longer * 3 // 4, short * 2 // 3))
    rng = np.random.default_rng(0)
    first, second = ([picture(rng, *size) for _ in range(2)] for size in sizes)
    yield from (first[:1], first, second[:1], second, [first[1], second[0]])


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Returns a drawn scene: (height, width, 3) uint8 RGB."""
    return np.array(Image.fromarray(scene(rng).image).resize((width, height), Image.Resampling.BICUBIC))


class Reference:
    """The detector as it was trained, norms and all, as a function of images of any sizes.

    Args:
        trained: whose `unfolded` submodels are used, with the NMS that every backend has.

    Attributes:
        level, share: largest difference of TensorFlow's resizing from Pillow's so far, and the share of an image's
            values that differ.
    """

    def __init__(self, trained: TrainedDetector):
        self.config = trained.config
        self.level, self.share = 0, 0.0
        model = inference_model(trained.unfolded, trained.config.model, padded=True)
        proposals = model.get_layer("proposals").output
        specs = {
            "images": tf.TensorSpec((None, None, None, 3), tf.float32),
            "image_sizes": tf.TensorSpec((None, 2), tf.int32),
        }
        both = keras.Model(model.inputs, (model.output, proposals))
        self.run = tf.function(both, input_signature=[specs], autograph=False)

    def __call__(self, images: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Returns size, boxes (in its pixels), scores, labels, proposal_boxes and proposal_scores of each image."""
        # Resized by TensorFlow: a pixel that Pillow rounds the other way is not the model's difference.
        prepared = [self._resized(image) for image in images]
        sizes = np.array([pixels.shape[:2] for pixels in prepared], np.int32)
        sides = -(-sizes.max(0) // self.config.input.divisor) * self.config.input.divisor
        padded = np.zeros((len(images), *sides, 3), np.float32)
        for row, pixels in zip(padded, prepared, strict=True):
            row[: len(pixels), : pixels.shape[1]] = pixels
        found, (rois, logits) = self.run({"images": padded, "image_sizes": sizes})
        results = []
        for i, image in enumerate(images):
            count, kept = int(found["num_detections"][i]), np.array(logits[i]) > -np.inf
            shape = np.array(image.shape[:2])
            results.append(
                {
                    "size": sizes[i],
                    "boxes": to_original(np.array(found["boxes"][i, :count]), sizes[i], shape),
                    "scores": np.array(found["scores"][i, :count]),
                    "labels": np.array(found["labels"][i, :count]),
                    "proposal_boxes": to_original(np.array(rois[i])[kept], sizes[i], shape),
                    "proposal_scores": 1.0 / (1.0 + np.exp(-np.array(logits[i], np.float64)[kept])),
                }
            )
        return results

    def _resized(self, image: np.ndarray) -> np.ndarray:
        pillow, size = prepare_image(image, self.config.input)
        resized = resize(tf.constant(image[None]), tf.constant(size))[0].numpy()
        levels = np.abs(resized.astype(int) - pillow)
        self.level, self.share = max(self.level, int(levels.max())), max(self.share, float(np.mean(levels > 0)))
        return resized


def _difference(
    trained: TrainedDetector, signature: Any, images: list[np.ndarray], wanted: list[dict[str, np.ndarray]]
) -> Difference | None:
    """The difference of one signature on one batch; None where it can't take the batch, or is unknown."""
    # Not by its name: Keras gives the first signature the name serving_default too, where no other has it.
    inputs, proposes = set(signature.structured_input_signature[1]), "proposal_boxes" in signature.structured_outputs
    if inputs == {"image_bytes"}:
        outputs = signature(image_bytes=tf.constant([_png(image) for image in images]))
    elif inputs == {"images"} and len({image.shape for image in images}) == 1:
        outputs = signature(images=tf.constant(np.stack(images)))
    else:
        return None
    outputs = {key: value.numpy() for key, value in outputs.items()}
    total = Difference(proposals=proposes)
    config = trained.config.model
    for i, (image, reference) in enumerate(zip(images, wanted, strict=True)):
        if proposes:
            rows = outputs["proposal_scores"][i] > 0
            got = outputs["proposal_boxes"][i][rows], outputs["proposal_scores"][i][rows], np.zeros(rows.sum())
            boxes, scores = reference["proposal_boxes"], reference["proposal_scores"]
            expected = boxes, scores, np.zeros(len(scores))
            cut = scores.min(initial=1.0) if len(scores) == config.post_nms_test else 0.0
        else:
            rows = np.arange(outputs["detection_scores"].shape[1]) < outputs["num_detections"][i]
            got = tuple(outputs[f"detection_{key}"][i][rows] for key in ("boxes", "scores", "classes"))
            boxes, scores = reference["boxes"], reference["scores"]
            expected = boxes, scores, np.array(trained.category_ids)[reference["labels"]]
            full = len(scores) == config.max_detections
            cut = scores.min(initial=1.0) if full else config.score_threshold
        scale = np.tile(reference["size"], 2)
        to_input = scale / np.tile(image.shape[:2], 2)
        total = total.plus(compare((expected[0] * to_input, *expected[1:]), (got[0] * scale, *got[1:]), cut))
    return total


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def compare(
    expected: tuple[np.ndarray, ...],
    got: tuple[np.ndarray, ...],
    cut: float = 0.0,
    box_limit: float = BOX_LIMIT,
    score_limit: float = SCORE_LIMIT,
) -> Difference:
    """Compares detections as sets: equal scores may change places, and one at the cut may be there or not.

    Args:
        expected, got: boxes (N, 4), scores (N,), classes (N,).
        cut: score below which rows were dropped; rows within `score_limit` of it need no counterpart.
        box_limit, score_limit: rows that differ by more are unmatched.
    """
    free = np.ones(len(got[1]), bool)
    largest = Difference(rows=len(expected[1]))
    for box, score, kind in zip(*expected, strict=True):
        sides = np.abs(got[0] - box).max(-1, initial=0.0)
        scores = np.abs(got[1] - score)
        usable = free & (got[2] == kind) & (sides <= box_limit) & (scores <= score_limit)
        if usable.any():
            best = int(np.argmin(np.where(usable, sides / box_limit + scores / score_limit, np.inf)))
            free[best] = False
            largest = largest.plus(Difference(float(sides[best]), float(scores[best])))
        elif score > cut + score_limit:
            largest = largest.plus(Difference(unmatched=1))
    return largest.plus(Difference(unmatched=int(np.sum(free & (got[1] > cut + score_limit)))))
