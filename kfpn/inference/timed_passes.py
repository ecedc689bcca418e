"""Runs a network on several sizes of images and on their mirror images, and measures what that costs."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from kfpn.config.run import Config
from kfpn.config.test_scales import checked_scales, scaled_input
from kfpn.data.augment import flip_boxes, flip_image
from kfpn.data.record import Source
from kfpn.evaluation.source_pass import SourcePass, detect_function

TIMED = 3
"""A pass at the run's own size is timed even where it is not one of the passes, on so many images (`ImagePyramid.detect_image`) or batches
(`ImagePyramid.detect_source`)."""

Merged = TypeVar("Merged")


class TimedPasses:
    """Holds the passes of an image pyramid over one network, in the order of the sizes, and measures their time.

    Attributes:
        scales: tuple of ints, short sides in pixels.
        flip: bool, whether each size has a second pass, over the mirror image.
        passes: list of `TimedDetector`, one after another, so memory is needed for one size at a time.
        largest: the resize rule of the largest size.

    Args:
        model: the padded inference model, or any callable that `kfpn.evaluation.detect_source` takes.
        config: of the run: its `input` is the resize rule at its own size.
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

    def _time_own_size(self, source: Source, batch_size: int | None) -> None:
        """Runs a single pass at the run's own size on a few batches, where none of the passes is one."""
        if not self._own_size.images:
            source_pass = SourcePass(source, self.config, batch_size, largest=self.largest)
            for batch in itertools.islice(source_pass.batches(), TIMED):
                self._own_size(batch)

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
        return pyramid_cost_line(self.cost(), self.config.input.short_side)

    def _timed_merge(self, merge: Callable[[], Merged]) -> Merged:
        """Returns the merged result of one image, and counts the time that merging takes."""
        if not self._merged_images:
            # The first call prepares what merging uses, which takes long, so it is not timed.
            merge()
        start = time.perf_counter()
        merged = merge()
        self._merged_images += 1
        self._merge_seconds += time.perf_counter() - start
        return merged


def pyramid_cost_line(cost: dict[str, Any], own: int) -> str:
    """Returns what an image pyramid costs as one line of text.

    Args:
        cost: of `TimedPasses.cost`.
        own: the run's own short side in pixels.
    """
    passes = f"{cost['passes']} pass" + ("es" if cost["passes"] > 1 else "")
    sizes = ", ".join(map(str, cost["scales"])) + ("; each mirrored too" if cost["flip"] else "")
    measured = "no image, no time"
    if cost["seconds_per_image"] is not None:
        measured = (
            f"{cost['seconds_per_image']:.3g} s an image, {cost['times_one_pass']:.1f} x one pass at {own} "
            "(without compilation and reading files)"
        )
    return f"image pyramid: {passes} ({sizes}), {measured}"


class TimedDetector:
    """Runs a network at one size of the images, as they are or mirrored, and measures its time.

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
        """Returns the network's outputs as arrays, with boxes in the image as it was given, not mirrored.

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
