"""Says what of a work directory's detector is evaluated, and how."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from kfpn.config.checks import check, whole
from kfpn.config.run import CheckImages, UsedPrecision
from kfpn.config.test_scales import checked_scales
from kfpn.config.tile_options import Tiles
from kfpn.data.record import Source


@dataclass(frozen=True)
class EvaluationRequest:
    """Says what is evaluated, and how.

    Attributes:
        workdir: of `kfpn train` or `kfpn import-weights`.
        data: what to evaluate on, a name as `kfpn.open_source` takes it, or a source. None: the validation data of the run.
        split: of the data, where their name does not say one.
        batch_size: images that are padded together, see `kfpn.data.eval_order.eval_order`. None: that of the run.
        scales: short sides of an image pyramid in pixels; None: the run's own size only.
        flip: look at the mirror image as well, at each size.
        proposals: measure the recall of the RPN's proposals as well.
        check_images: "full", "once" or "none", see `Config.check_images`. None: as the run did.
        eval_batch_size: images that the model is given at once; it changes no figure. None: that of the run. Where the run
            has none, or `batch_size` is given, memory decides, and no more than the batch size are taken.
        max_detections: detections an image at most; None: as the run has it.
        best_thresholds: find each class's best score threshold, and keep them in the work directory.
        tiles: look at each image in tiles, of a side in pixels or as `Tiles` says, and as a whole. 0: as a whole only. None: as the run
            trained.
        precision: Keras' dtype policy, see `kfpn.runs.used_precision.used_precision`.

    Raises:
        ValueError: if `workdir` is no path, the scales are no sequence of different integers of at least 32, or `eval_batch_size` or
            `max_detections` is below 1.
    """

    workdir: str | os.PathLike
    data: str | Source | None = None
    split: str = "validation"
    batch_size: int | None = None
    scales: Sequence[int] | None = None
    flip: bool = False
    proposals: bool = False
    check_images: CheckImages | None = None
    eval_batch_size: int | None = None
    max_detections: int | None = None
    best_thresholds: bool = False
    tiles: Tiles | int | None = None
    precision: UsedPrecision = "auto"

    def __post_init__(self) -> None:
        if not isinstance(self.workdir, str | os.PathLike):
            raise ValueError(
                f"workdir must be the path of a work directory, got a {type(self.workdir).__name__}: kfpn.save_detector(detector, PATH) "
                "writes one, and so does kfpn.callbacks.WorkDirectory(PATH) in fit"
            )
        if isinstance(self.scales, str | int):
            raise ValueError(f"scales must be a sequence of integers, like (480, 640, 800), got {self.scales!r}")
        checked_scales(self.scales or ())
        if isinstance(self.tiles, int):
            Tiles(self.tiles)
        for name in ("eval_batch_size", "max_detections"):
            if getattr(self, name) is not None:
                check(self, "", name, whole(1))
