"""Runs a detector on several sizes of an image, and on its mirror images: an image pyramid (FPN, figure 1 a).

A feature pyramid replaces it, because an image pyramid takes several times as long (FPN, introduction). As in detectron2's
`GeneralizedRCNNWithTTA`, every pass gives final detections, and NMS within each class merges those of all passes; masks are averaged.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from kfpn.config.run import Config
from kfpn.config.test_scales import checked_scales, scaled_input
from kfpn.data.augment import flip_boxes, flip_image
from kfpn.data.jpeg_fraction import AnyImage
from kfpn.data.record import Source
from kfpn.evaluation.detect import (
    detect_image,
    evaluate_detections,
    original_detections,
    source_labels,
)
from kfpn.evaluation.mask_means import compact_masks
from kfpn.evaluation.merged import merge_detections
from kfpn.evaluation.segmentations import segmented
from kfpn.evaluation.source_pass import SourcePass, detect_function, outputs_by_image

TIMED = 3
"""A pass at the run's own size is timed even where it is not one of the passes, on so many images (`detect_image`) or batches
(`detect_source`)."""


class ImagePyramid:
    """Detects objects in several sizes of an image and merges what was found.

    Args:
        model: the padded inference model, or any callable that `kfpn.evaluation.detect_source` takes.
        config: of the run: its `input` is the resize rule at its own size, its `model` has the threshold of scores, the
            IoU of NMS and the number of detections.
        scales: short sides in pixels. None: the run's own. The limit of the long side changes in proportion, see
            `kfpn.config.test_scales.scaled_input`.
        flip: look at the mirror image as well, at each size.
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
        # A large JPEG is decoded at the fraction for the largest size, so that all passes get the same pixels.
        self.largest = scaled_input(config.input, max(self.scales))
        self._detect = detect_function(model, jit_compile)
        self.passes = [
            TimedDetector(self._detect, dataclasses.replace(config, input=scaled_input(config.input, scale)), mirrored)
            for scale in self.scales
            for mirrored in ((False, True) if flip else (False,))
        ]
        at_own_size = (one for one in self.passes if one.config.input == config.input and not one.mirrored)
        self._own_size = next(at_own_size, None) or TimedDetector(self._detect, config)
        self._merged_images, self._merge_seconds = 0, 0.0

    def detect_source(
        self, source: Source, batch_size: int | None = None, progress: bool = True
    ) -> list[dict[str, Any]]:
        """Returns the detections of every image of a source.

        Args:
            source: the data set.
            batch_size: images at once, at each size. None: that of the run's config.
            progress: show a bar, over passes and images.

        Returns:
            list: as `kfpn.evaluation.detect_source` gives it.

        Raises:
            ValueError: as `kfpn.evaluation.detect_source`.
        """
        by_image: dict[int, list[dict[str, np.ndarray]]] = {}
        merged = []
        with tqdm(total=len(self.passes) * len(source), unit="image", disable=not progress, leave=False) as bar:
            for number, one in enumerate(self.passes, start=1):
                bar.set_description(f"detect at {one.name}, {number} of {len(self.passes)}")
                source_pass = SourcePass(source, one.config, batch_size, progress=False, largest=self.largest)
                for image_id, row in outputs_by_image(one, source_pass):
                    by_image.setdefault(image_id, []).append(compact_masks(original_detections(row)))
                    if one is self.passes[-1]:
                        of_image = self._merge(by_image.pop(image_id))
                        of_image = segmented(of_image, row["original_sizes"], self.config.model.pasting)
                        merged.append({"image_id": image_id, **of_image})
                    bar.update()
        self._time_own_size(source, batch_size)
        return merged

    def _time_own_size(self, source: Source, batch_size: int | None) -> None:
        """Runs a single pass at the run's own size on a few batches, where none of the passes is one."""
        if not self._own_size.images:
            source_pass = SourcePass(source, self.config, batch_size, largest=self.largest)
            for batch in itertools.islice(source_pass.batches(), TIMED):
                self._own_size(batch)

    def detect_image(self, image: AnyImage, image_id: int = 0) -> dict[str, Any]:
        """Returns the detections of one image, as `kfpn.evaluation.detect_image` gives them.

        Args:
            image: (H, W, 3) uint8 RGB, or an image as `decode_picture` gives it for `largest`.
            image_id: goes into the result.

        Raises:
            ValueError: if `image` is not such an array.
        """
        of_passes = [detect_image(one, image, one.config.input, image_id) for one in self.passes]
        self._time_own_size_of_image(image)
        return {"image_id": image_id, **self._merge(of_passes)}

    def _time_own_size_of_image(self, image: AnyImage) -> None:
        if self._own_size not in self.passes and self._own_size.images < TIMED:
            detect_image(self._own_size, image, self.config.input)

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
        # The classes are checked before a long evaluation, not after it.
        source_labels(source, class_names)
        detections = self.detect_source(source, batch_size, progress)
        return evaluate_detections(source, class_names, detections, limit=self.config.model.max_detections)

    def cost(self) -> dict[str, Any]:
        """Returns the measured time of an image so far, without reading files and without compilation.

        Returns:
            dict: `scales` list of pixels; `flip` bool; `passes` int, of each image; `seconds_per_image` float;
            `times_one_pass` float, the time as a multiple of a single pass at the run's own size. Both times are None as
            long as there was no image.
        """
        seconds, ratio = None, None
        if self._merged_images and self._own_size.images:
            seconds = sum(one.seconds / one.images for one in self.passes) + self._merge_seconds / self._merged_images
            ratio = seconds * self._own_size.images / self._own_size.seconds
        return {
            "scales": list(self.scales),
            "flip": self.flip,
            "passes": len(self.passes),
            "seconds_per_image": seconds,
            "times_one_pass": ratio,
        }

    def cost_line(self) -> str:
        """Returns `cost` as one line of text."""
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
        if not self._merged_images:
            # The first call prepares TensorFlow's kernels, which takes long, so it is not timed.
            merge_detections(passes, self.config.model)
        start = time.perf_counter()
        merged = merge_detections(passes, self.config.model)
        self._merged_images += 1
        self._merge_seconds += time.perf_counter() - start
        return merged


class TimedDetector:
    """Runs a detector at one size of the images, as they are or mirrored, and measures its time.

    Attributes:
        seconds: float, the time of the calls that count. The first call with images of a new size does not count, because
            it compiles.
        images: int, the images of these calls, including black ones that fill up a batch.
        rows: int, the images of all calls, those too.

    Args:
        detect: of `detect_function`; all passes share it and what it has compiled.
        config: of the run, with the resize rule of this size.
        mirrored: mirror the images, and mirror the boxes and masks back.
    """

    def __init__(self, detect: Any, config: Config, mirrored: bool = False) -> None:
        self.config = config
        self.mirrored = mirrored
        self.name = f"{config.input.short_side}{' mirrored' if mirrored else ''}"
        self.seconds, self.images, self.rows = 0.0, 0, 0
        # By this attribute `detect_function` sees that nothing is left to compile.
        self.get_concrete_function = detect.get_concrete_function
        self._detect = detect
        self._compiled_shapes: set[tuple[int, ...]] = set()

    def __call__(self, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Returns the detector's outputs as arrays, with boxes in the image as it was given, not mirrored.

        Args:
            inputs: dict of `images` (B, H, W, 3) and `image_sizes` (B, 2) int32, pixels.
        """
        shape = tuple(inputs["images"].shape)
        self.rows += shape[0]
        if shape not in self._compiled_shapes:
            self._compiled_shapes.add(shape)
            outputs = self._run(inputs)
            if self.images:
                return outputs
            # No call has counted so far. The images run once more, so that even a single image has a time.
        start = time.perf_counter()
        outputs = self._run(inputs)
        self.seconds += time.perf_counter() - start
        self.images += shape[0]
        return outputs

    def _run(self, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        images, sizes = inputs["images"], inputs["image_sizes"]
        if self.mirrored:
            # Only the true columns of each image are reversed, so the padding stays on the right. Both inputs are of NumPy then, as
            # Keras takes no mixture where TensorFlow's functions run eagerly.
            images, sizes = np.array(images), np.asarray(sizes)
            for image, width in zip(images, sizes[:, 1], strict=True):
                image[:, :width] = flip_image(image[:, :width]).copy()
        outputs = self._detect({"images": images, "image_sizes": sizes})
        arrays = {name: np.asarray(value) for name, value in outputs.items()}
        if self.mirrored:
            rows = zip(arrays["boxes"], sizes[:, 1], strict=True)
            arrays["boxes"] = np.stack([flip_boxes(boxes, width) for boxes, width in rows])
            if "masks" in arrays:
                arrays["masks"] = arrays["masks"][..., ::-1]
        return arrays
