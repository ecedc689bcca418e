"""Refuses data that nothing can be learnt from, and warns of data that teaches little or can't be measured."""

import logging
import math

from kfpn.config.run import Config
from kfpn.data.annotation_checks import BESIDE_BOX, CLIPPED, OTHER_EXTENT, OUTSIDE, OUTSIDE_IMAGE
from kfpn.data.annotations import AnnotatedSource
from kfpn.data.box_conventions import odd_pattern
from kfpn.data.class_table import ClassCounts, count_classes, printable
from kfpn.data.record import Source
from kfpn.data.source_masks import have_masks

LOGGER = logging.getLogger("kfpn")
_NAMED_CLASSES = 8
_FEW = 4
"""Fewer images or boxes than this are no pattern."""
ENOUGH_TO_MEASURE = 30
"""Images: on fewer, AP changes by several hundredths when one image is another."""


def rough_measure_line(images: int, kept_of: int | None = None, figure: str = "AP") -> str:
    """Returns one line that says that a figure is uncertain, "" where it is measured on enough images.

    Args:
        images: that it is measured on.
        kept_of: images of the data set that they are a share of; None: they are data of their own.
        figure: its name.
    """
    if images >= ENOUGH_TO_MEASURE:
        return ""
    rough = f"{figure} is measured on {images} images: with fewer than {ENOUGH_TO_MEASURE} it is a rough guess"
    if kept_of is None:
        return f"{rough}; --val-data names more"
    share = math.ceil(100 * ENOUGH_TO_MEASURE / kept_of) / 100
    if share <= 0.5:
        return f"{rough}; --val-share {share:g} keeps {round(share * kept_of)} of the {kept_of} images for it"
    return f"{rough}; half of the {kept_of} images are not enough either, so more photographs are needed"


def check_training_set(source: Source) -> None:
    """Checks training data as a whole: that there is something to learn from, and that it looks like what was meant.

    Args:
        source: to train on. A source of one's own that keeps no annotations at hand is not looked at.

    Raises:
        ValueError: when no box is left that is not crowd; says why.
    """
    if not isinstance(source, AnnotatedSource):
        return
    counts = count_classes(source)
    objects, crowd = int(counts.objects.sum()), int(counts.crowd.sum())
    if not objects:
        raise ValueError(
            f"{source.name}: has no box to learn from: {_why_none(source, crowd)}. Give it annotations of objects, or use other data"
        )
    _warn_of_unused_classes(source, counts, " to learn from")
    if counts.empty_images > len(source) // 2 and len(source) >= _FEW:
        LOGGER.warning("%s: images without a box: %d of %d", source.name, counts.empty_images, len(source))
    _warn_of_pattern(source)


def require_any_mask(source: Source, config: Config) -> None:
    """Raises ValueError where no object of a data set has a mask, which the task of a run needs. Sources of other classes are not asked: that would read all of it."""
    option, instead = "--mask", "leave --mask out"
    if config.model.task == "segments":
        option, instead = "--task segments", "leave --task out for a detector"
    if isinstance(source, AnnotatedSource) and not have_masks(source):
        advice = f"{instead}, or name data with outlines (docs/masks.md)"
        if source.annotations.masks is None:
            advice += "; in Python, kfpn.open_source(..., masks=True) reads them"
        raise ValueError(f"{source.name} must have objects with masks for {option}, got none: {advice}")


def check_validation_set(source: Source) -> None:
    """Warns of validation data on which AP can't be measured, or that look like something else than was meant.

    Args:
        source: to evaluate on. A source of one's own that keeps no annotations at hand is not looked at.
    """
    if not isinstance(source, AnnotatedSource):
        return
    counts = count_classes(source)
    if not counts.objects.any():
        why = _why_none(source, int(counts.crowd.sum()))
        LOGGER.warning("%s: AP can't be measured on it, there is no object to find: %s", source.name, why)
        return
    _warn_of_unused_classes(source, counts, ", whose AP can't be measured")
    _warn_of_pattern(source)


def warn_of_shared_images(training: Source, validation: Source) -> None:
    """Warns of images that are trained on and evaluated on: what is measured on them says nothing of new images.

    Args:
        training, validation: data sets. Images that are no files are not compared.
    """
    if not isinstance(training, AnnotatedSource) or not isinstance(validation, AnnotatedSource):
        return
    trained = set(training.image_files())
    shared = [file for file in validation.image_files() if file in trained]
    if shared:
        LOGGER.warning(
            "%s: images that are training images too: %d of %d (first: %s): what is measured on them says nothing of new images",
            validation.name, len(shared), len(validation), shared[0],
        )  # fmt: skip


def _warn_of_unused_classes(source: AnnotatedSource, counts: ClassCounts, why: str) -> None:
    unused = [name for name, count in zip(source.class_names, counts.objects, strict=True) if not count]
    if unused:
        LOGGER.warning(
            "%s: classes without an object%s: %d of %d (%s)",
            source.name, why, len(unused), len(source.class_names), _names(unused),
        )  # fmt: skip


def _why_none(source: AnnotatedSource, crowd: int) -> str:
    left_out = sum(
        count for kind, (count, _) in source.fault_counts.items() if kind.startswith("boxes") and "left out" in kind
    )
    parts = [f"{crowd} boxes, all of them crowd (iscrowd, ignore or difficult)"] if crowd else []
    if left_out:
        parts.append(f"boxes left out: {left_out}, see the warnings above")
    return " and ".join(parts) or f"0 boxes in {len(source)} images"


def _warn_of_pattern(source: AnnotatedSource) -> None:
    held = source.annotations
    sizes = source.sizes[held.image_of_box()]
    if odd := odd_pattern(held.boxes[~held.crowd], sizes[~held.crowd]):
        LOGGER.warning("%s: %s", source.name, odd)
    past = sum(source.fault_counts.get(kind, (0, ""))[0] for kind in (OUTSIDE, CLIPPED))
    if past > max(_FEW, len(held.boxes)) / 2:
        LOGGER.warning(
            "%s: %d boxes reach outside their images, more than half of them: were the images resized after they were annotated, or "
            "are the boxes in another order of x and y?", source.name, past,
        )  # fmt: skip
    astray = sum(source.fault_counts.get(kind, (0, ""))[0] for kind in (OUTSIDE_IMAGE, BESIDE_BOX, OTHER_EXTENT))
    if astray > max(_FEW, len(held.boxes)) / 2:
        LOGGER.warning(
            "%s: %d masks lie elsewhere than their objects' boxes, more than half of them: are x and y of the polygons swapped, or "
            "given as shares of the image's sides? They must be x, y in pixels", source.name, astray,
        )  # fmt: skip


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED_CLASSES} more" if len(names) > _NAMED_CLASSES else ""
    return ", ".join(printable(name) for name in names[:_NAMED_CLASSES]) + more
