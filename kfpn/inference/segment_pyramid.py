"""Proposes segments in several sizes of an image, and in its mirror images, and keeps the best of all: an image pyramid."""

from functools import partial
from typing import Any

from kfpn.data.jpeg_fraction import AnyImage
from kfpn.data.record import Source
from kfpn.evaluation.segment_recall import ranks_of_all, rows_near_objects, segment_recall, segments_by_image
from kfpn.evaluation.source_pass import SourcePass
from kfpn.inference.segments import Segments, best_of_passes, segment_image
from kfpn.inference.timed_passes import TIMED, TimedPasses


class SegmentPyramid(TimedPasses):
    """Proposes segments in several sizes of an image, and keeps the best scores of all.

    Each pass brings its windows back to the image as it was given; those of a mirror image are mirrored, with their masks. Then the
    `model.max_segments` best scores of all passes stay, of equal ones those of the earlier pass first. As at a single size there is
    no NMS. Masks of windows are not averaged: no two windows are the same.

    Args:
        model: of `kfpn.load_segmenter(workdir, padded=True)`.
        config: of the run; its `model` has the number of segments.
        scales, flip, jit_compile: as `TimedPasses` takes them.

    Raises:
        ValueError: as `TimedPasses`.
    """

    def segment_image(self, image: AnyImage) -> Segments:
        """Returns the segments of one image.

        Args:
            image: (H, W, 3) uint8 RGB, or an image as `decode_picture` gives it for `largest`.

        Raises:
            ValueError: if `image` is not such an array.
        """
        model = self.config.model
        how = model.pasting, model.levels[0][0]
        of_passes = [segment_image(one, image, one.config.input, *how) for one in self.passes]
        if self._own_size not in self.passes and self._own_size.images < TIMED:
            segment_image(self._own_size, image, self.config.input, *how)
        return self._timed_merge(lambda: best_of_passes(of_passes, model.max_segments))

    def evaluate_source(
        self, source: Source, batch_size: int | None = None, progress: bool = True
    ) -> dict[str, float | None]:
        """Returns the recall of the segments on a source, see `kfpn.evaluation.segment_recall.segment_recall`.

        Of each image and pass all scores are kept, which give the ranks, but the masks alone that overlap an object.

        Args:
            source: the data set, with masks.
            batch_size: images that are padded together. None: that of the run's config.
            progress: show a bar for each pass.

        Raises:
            ValueError: as `kfpn.evaluation.segment_recall.evaluate_segments`.
        """
        scores: list[list[Any]] = [[] for _ in range(len(source))]
        near: list[list[list[dict[str, Any]]]] = [[] for _ in range(len(source))]
        for number, one in enumerate(self.passes, start=1):
            source_pass = SourcePass(source, one.config, batch_size, progress, largest=self.largest)
            title = f"segment at {one.name}, {number} of {len(self.passes)}"
            for index, segments in segments_by_image(one, source_pass, title):
                scores[index].append(segments["scores"])
                near[index].append(rows_near_objects(source[index], segments, self.config.model.pasting))
        rows = []
        for of_passes, of_image in zip(scores, near, strict=True):
            ranks = self._timed_merge(partial(ranks_of_all, of_passes))
            for own, part in zip(ranks, of_image, strict=True):
                rows += [row | {"rank": int(own[row["rank"]])} for row in part]
        self._time_own_size(source, batch_size)
        best = [row for row in rows if row["rank"] < self.config.model.max_segments]
        return segment_recall((source[index] for index in range(len(source))), best)
