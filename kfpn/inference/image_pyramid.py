"""An image pyramid at test time (FPN, figure 1 a): the same detector on several sizes of an image, and its mirror image.

It is what a feature pyramid replaces, for inference takes several times as long (FPN, introduction). As in detectron2's
`GeneralizedRCNNWithTTA`, every pass gives final detections, and NMS within each class merges those of all passes.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kfpn.config.model import ModelConfig
from kfpn.config.run import Config
from kfpn.config.test_scales import checked_scales, scaled_input
from kfpn.data.augment import flip_boxes
from kfpn.data.pipeline import eval_batches
from kfpn.data.record import Source
from kfpn.evaluation.detect import (
    detect_function,
    detect_image,
    evaluate_detections,
    original_detections,
    outputs_by_image,
    source_labels,
)
from kfpn.ops.nms import suppress

# Images (`detect_image`) or batches (`detect_source`) on which a pass at the run's own size is timed where it is not
# one of the passes anyway.
_TIMED = 3


class ImagePyramid:
    """A detector that looks at an image in several sizes.

    Args:
        model: the padded inference model, or any callable that `detect_source` of `kfpn.evaluation` takes.
        config: of the run: its `input` is the resize rule at its own size, its `model` has the threshold of scores, the
            IoU of NMS and the number of detections.
        scales: short sides in pixels. None: the run's own. The limit of the long side goes along, see
            `kfpn.config.test_scales.scaled_input`.
        flip: at each size look at the mirror image as well.
        jit_compile: compile with XLA, once for each padded image size.

    Raises:
        ValueError: as `kfpn.config.test_scales.checked_scales`.
    """

    def __init__(
        self,
        model: Callable,
        config: Config,
        scales: Sequence[int] | None = None,
        flip: bool = False,
        jit_compile: bool = False,
    ) -> None:
        self.config = config
        self.scales = checked_scales(scales) if scales else (config.input.short_side,)
        self.flip = flip
        detect = detect_function(model, jit_compile)
        self.passes = [
            Pass(detect, dataclasses.replace(config, input=scaled_input(config.input, scale)), mirrored)
            for scale in self.scales
            for mirrored in ((False, True) if flip else (False,))
        ]
        usual = (one for one in self.passes if one.config.input == config.input and not one.mirrored)
        self._one_pass = next(usual, None) or Pass(detect, config)
        self._merged, self._merging = 0, 0.0

    def detect_source(
        self, source: Source, batch_size: int | None = None, progress: bool = True
    ) -> list[dict[str, Any]]:
        """Returns the detections of every image of a source.

        Args:
            source, batch_size: as `kfpn.evaluation.detect_source` takes them; images are batched at each size.
            progress: show a bar, over passes and images.

        Returns:
            list: as `kfpn.evaluation.detect_source` gives it.

        Raises:
            ValueError: as `kfpn.evaluation.detect_source`.
        """
        found: dict[int, list[dict[str, np.ndarray]]] = {}
        merged = []
        with tqdm(total=len(self.passes) * len(source), unit="image", disable=not progress, leave=False) as bar:
            for number, one in enumerate(self.passes, start=1):
                bar.set_description(f"detect at {one.name}, {number} of {len(self.passes)}")
                for image_id, row in outputs_by_image(one, source, one.config, batch_size, progress=False):
                    found.setdefault(image_id, []).append(original_detections(row))
                    if one is self.passes[-1]:
                        merged.append({"image_id": image_id, **self._merge(found.pop(image_id))})
                    bar.update()
        if not self._one_pass.images:
            size = self.config.batch_size if batch_size is None else batch_size
            for batch in eval_batches(source, self.config, size).take(_TIMED):
                self._one_pass(batch)
        return merged

    def detect_image(self, image: np.ndarray, image_id: int = 0) -> dict[str, Any]:
        """Returns the detections of one image, as `kfpn.evaluation.detect_image` gives them.

        Args:
            image: (H, W, 3) uint8 RGB.
            image_id: goes into the result.
        """
        found = [detect_image(one, image, one.config, image_id) for one in self.passes]
        if self._one_pass not in self.passes and self._one_pass.images < _TIMED:
            detect_image(self._one_pass, image, self.config)
        return {"image_id": image_id, **self._merge(found)}

    def evaluate_source(
        self, source: Source, class_names: Sequence[str], batch_size: int | None = None, progress: bool = True
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Returns the COCO figures on a source, and the detections, as `kfpn.evaluation.evaluate_source` does.

        Args:
            class_names: the names of the model's labels; the source's must be among them.
            source, batch_size, progress: as `detect_source` takes them.

        Raises:
            ValueError: if the model lacks a class of the source, or the source is empty.
        """
        source_labels(source, class_names)  # said before a long evaluation, not after it
        return evaluate_detections(source, class_names, self.detect_source(source, batch_size, progress))

    def cost(self) -> dict[str, Any]:
        """Returns what an image has cost so far, by the clock, without reading files and without compilation.

        Returns:
            dict: `scales` list of pixels, `flip` bool, `passes` int an image, `seconds_per_image`, `times_one_pass`, how
            many times a single pass at the run's own size; both None as long as there was no image.
        """
        seconds, ratio = None, None
        if self._merged and self._one_pass.images:
            seconds = sum(one.seconds / one.images for one in self.passes) + self._merging / self._merged
            ratio = seconds * self._one_pass.images / self._one_pass.seconds
        return {
            "scales": list(self.scales),
            "flip": self.flip,
            "passes": len(self.passes),
            "seconds_per_image": seconds,
            "times_one_pass": ratio,
        }

    def cost_line(self) -> str:
        """Returns `cost` in words."""
        cost = self.cost()
        passes = f"{cost['passes']} pass" + ("es" if cost["passes"] > 1 else "")
        sizes = ", ".join(map(str, self.scales)) + ("; each mirrored too" if self.flip else "")
        measured = "no image, no time"
        if cost["seconds_per_image"] is not None:
            own = self.config.input.short_side
            measured = (
                f"{cost['seconds_per_image']:.3g} s an image, {cost['times_one_pass']:.1f} x one pass at {own} "
                "(without compilation and reading files)"
            )
        return f"image pyramid: {passes} ({sizes}), {measured}"

    def _merge(self, passes: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        if not self._merged:
            merge_detections(passes, self.config.model)  # the first time is slow, as it is with a pass
        start = time.perf_counter()
        merged = merge_detections(passes, self.config.model)
        self._merged += 1
        self._merging += time.perf_counter() - start
        return merged


class Pass:
    """A detector at one size of the images, as they are or mirrored, with a stopwatch.

    Attributes:
        seconds: float, taken by the calls that count: not by the first with images of a new size, which compiles.
        images: int, in the calls that count, black ones that fill up a batch included.

    Args:
        detect: `tf.function` of {images, image_sizes}, which all passes share with what is compiled.
        config: of the run, with the resize rule of this size.
        mirrored: mirror the images, and the boxes that are found back again.
    """

    def __init__(self, detect: Any, config: Config, mirrored: bool = False) -> None:
        self.config = config
        self.mirrored = mirrored
        self.name = f"{config.input.short_side}{' mirrored' if mirrored else ''}"
        self.seconds, self.images = 0.0, 0
        self.get_concrete_function = detect.get_concrete_function  # `detect_function` takes it as it is
        self._detect = detect
        self._seen: set[tuple[int, ...]] = set()

    def __call__(self, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Returns the detector's outputs as arrays; boxes are of the image that was not mirrored.

        Args:
            inputs: dict of `images` (B, H, W, 3) and `image_sizes` (B, 2) int32, pixels.
        """
        shape = tuple(inputs["images"].shape)
        if shape not in self._seen:
            self._seen.add(shape)
            outputs = self._run(inputs)
            if self.images:
                return outputs
            # Nothing counts so far: once more, so that a single image has a time as well.
        start = time.perf_counter()
        outputs = self._run(inputs)
        self.seconds += time.perf_counter() - start
        self.images += shape[0]
        return outputs

    def _run(self, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        images, widths = inputs["images"], inputs["image_sizes"][:, 1]
        if self.mirrored:
            # Each row's true columns only: the padding stays on the right.
            images = tf.reverse_sequence(images, widths, seq_axis=2, batch_axis=0)
        outputs = self._detect({"images": images, "image_sizes": inputs["image_sizes"]})
        arrays = {name: np.asarray(value) for name, value in outputs.items()}
        if self.mirrored:
            rows = zip(arrays["boxes"], np.asarray(widths), strict=True)
            arrays["boxes"] = np.stack([flip_boxes(boxes, width) for boxes, width in rows])
        return arrays


def merge_detections(passes: Sequence[dict[str, Any]], config: ModelConfig) -> dict[str, np.ndarray]:
    """Returns the detections of one image that NMS within each class leaves of those of several passes.

    Of two with the same score the one of the earlier pass goes first. A single pass stays as it is: its NMS is done.

    Args:
        passes: `boxes` (n, 4) yxyx pixels of the original image, `scores` (n,), `labels` (n,) of each pass.
        config: with `nms_iou`, `score_threshold` (scores at or below it are dropped) and `max_detections`.

    Returns:
        dict: `boxes` (m, 4) float32, `scores` (m,) float32 from high to low, `labels` (m,) int32; m is at most
        `max_detections`.
    """
    names = ("boxes", "scores", "labels")
    rows = {name: np.concatenate([found[name] for found in passes]) for name in names}
    if len(passes) == 1 or not len(rows["scores"]):
        return rows
    order = np.argsort(-rows["scores"], kind="stable")
    ranked = {name: values[order] for name, values in rows.items()}
    valid = ranked["scores"] > config.score_threshold
    keep = suppress(ranked["boxes"][None], valid[None], config.nms_iou, groups=ranked["labels"][None])
    chosen = np.flatnonzero(np.asarray(keep)[0])[: config.max_detections]
    return {name: values[chosen] for name, values in ranked.items()}
