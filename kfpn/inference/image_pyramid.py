"""Runs a detector on several sizes of an image, and on its mirror images: an image pyramid (FPN, figure 1 a).

A feature pyramid replaces it, because an image pyramid takes several times as long (FPN, introduction). As in detectron2's
`GeneralizedRCNNWithTTA`, every pass gives final detections, and NMS within each class merges those of all passes; masks are averaged.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

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
from kfpn.evaluation.source_pass import SourcePass, outputs_by_image
from kfpn.inference.timed_passes import TIMED, TimedPasses


class ImagePyramid(TimedPasses):
    """Detects objects in several sizes of an image and merges what was found.

    Args:
        model: the padded inference model, or any callable that `kfpn.evaluation.detect_source` takes.
        config: of the run: its `input` is the resize rule at its own size, its `model` has the threshold of scores, the
            IoU of NMS and the number of detections.
        scales, flip, jit_compile: as `TimedPasses` takes them.

    Raises:
        ValueError: as `TimedPasses`.
    """

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

    def _merge(self, passes: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        return self._timed_merge(lambda: merge_detections(passes, self.config.model))
