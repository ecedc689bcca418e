"""Writes SavedModels for TensorFlow Serving, and for every program that loads SavedModels without Keras."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from kfpn.config.segment_settings import require_none_given
from kfpn.export.archive import write_archive, write_facts
from kfpn.export.asset_files import ExportPrecision
from kfpn.export.saved_model.request_limits import USUAL_LIMITS, RequestLimits
from kfpn.export.saved_model.served_detector import NMS_FORMS, ServedDetector
from kfpn.export.saved_model.served_segmenter import ServedSegmenter
from kfpn.export.saved_model.serving_files import (
    check_batch_pixels,
    check_batch_sizes,
    read_images,
    write_batching,
    write_warmup,
)
from kfpn.export.saved_model.verify_saved_model import verify_trained
from kfpn.export.saved_model.verify_thresholded import verify_served_thresholds
from kfpn.export.stored_form import policy_of_export, stored_form
from kfpn.export.trained import TrainedDetector, TrainedSegmenter, next_version, open_either, written_aside
from kfpn.runs.load import task_of
from kfpn.runs.precision import dtype_policy

SIGNATURES = {"image_bytes": "serving_default", "image_tensor": "image_tensor", "proposals": "proposals"}
"""Signature that can be exported -> the name by which servers find it."""

_FILES = tf.TensorSpec((None,), tf.string, "image_bytes")
_PIXELS = tf.TensorSpec((None, None, None, 3), tf.uint8, "images")


def export_saved_model(
    workdir: str | os.PathLike,
    directory: str | os.PathLike,
    *,
    signatures: Sequence[str] = tuple(SIGNATURES),
    warmup: Sequence[str | os.PathLike] = (),
    warmup_batch_sizes: Sequence[int] = (1,),
    batching: bool = False,
    xla: bool = False,
    nms_on: str = "cpu",
    best_thresholds: bool = False,
    verify: bool = False,
    limits: RequestLimits = USUAL_LIMITS,
    full_masks: bool = False,
    precision: ExportPrecision = "float32",
) -> Path:
    """Writes a trained detector, or what proposes segments, as the next version of a served model.

    Args:
        workdir: of `kfpn train`, `kfpn.callbacks.WorkDirectory`, `kfpn.save_detector` or `kfpn import-weights`.
        directory: the model's folder; the export becomes its next subfolder: 1, 2, and so on.
        signatures: keys of `SIGNATURES`.
        warmup: image files, of which a server answers requests in every signature before it opens.
        warmup_batch_sizes: images in these requests; there is one request for each image and each size.
        batching: also write `directory`/batching.config, unless it is there.
        xla: compile the convolutions and the box head with XLA, anew for each padded size and batch size.
        nms_on: a key of `NMS_FORMS`: the device whose kernels select proposals and detections. The detections are the same.
        best_thresholds: leave out detections below the threshold of their class, see `kfpn.evaluate`.
        verify: compare with the Keras model before the version appears, see `verify_saved_model`.
        limits: what the server takes at most, and whether one bad file fails its whole request.
        full_masks: also give the masks pasted into images of the size that was sent, see `FULL_MASKS`. It takes a detector with
            masks, and a signature other than "proposals".
        precision: what convolutions and matrix products are computed in, see `stored_form`.

    Returns:
        The new version's folder.

    Raises:
        ValueError: for a work directory without weights or without the thresholds or masks that are asked for, a place that cannot
            be written, an unknown signature, or an image that cannot be read. No version appears then.
        ExportMismatch: a ValueError, for an export that differs from Keras. No version appears then.
    """
    names = signatures_of(workdir, signatures)
    if nms_on not in NMS_FORMS:
        raise ValueError(f"nms_on must be {' or '.join(NMS_FORMS)}, got {nms_on!r}")
    if full_masks and names == ("proposals",):
        raise ValueError("full_masks must go with image_bytes or image_tensor, got the signature proposals alone")
    check_batch_sizes(warmup_batch_sizes, limits)
    images = read_images(warmup, limits)
    target = next_version(directory)
    if task_of(workdir) == "segments":
        of_nms = None if nms_on == "cpu" else nms_on
        require_none_given(workdir, {"nms_on": of_nms, "best_thresholds": best_thresholds, "full_masks": full_masks})
    trained = open_either(workdir, best_thresholds)
    if not xla or precision != "float32":  # XLA runs the products of float32 faster than the convolutions of that form
        trained = stored_form(trained, precision)
    if full_masks and not trained.config.model.mask:
        raise ValueError(f"full_masks must go with a detector that has masks, got {workdir}, which has none")
    masks = trained.config.model.max_detections if full_masks else 0
    check_batch_pixels(images, warmup_batch_sizes, trained.config.input, limits, masks)
    form = xla, limits, nms_on, full_masks
    with written_aside(target) as aside:
        write_signatures(trained, aside, names, served_form(trained, *form))
        if images:
            write_warmup(aside, images, [SIGNATURES[name] for name in names], warmup_batch_sizes, target.parent.name)
        if verify and isinstance(trained, TrainedDetector) and trained.thresholds is not None:
            # The thresholds hide most rows of a drawn picture. So the same export without them is compared with Keras.
            plain, all_rows = aside.with_name("plain"), dataclasses.replace(trained, thresholds=None)
            write_signatures(all_rows, plain, names, served_form(all_rows, *form))
            verify_trained(all_rows, plain)
            verify_served_thresholds(trained, plain, aside)
        elif verify:
            verify_trained(trained, aside)
    if batching:
        write_batching(target.parent)
    return target


def signatures_of(workdir: str | os.PathLike, signatures: Sequence[str]) -> tuple[str, ...]:
    """Returns the signatures that an export of a run gets.

    Args:
        workdir: of the run.
        signatures: keys of `SIGNATURES`. All of them stand for all that the run can have: segments have no RPN with proposals.

    Raises:
        ValueError: if one is unknown, there are none, or the run cannot have one.
    """
    unknown = [name for name in signatures if name not in SIGNATURES]
    if unknown or not signatures:
        raise ValueError(f"signatures must be some of {', '.join(SIGNATURES)}, got {', '.join(unknown) or 'none'}")
    names = tuple(dict.fromkeys(signatures))
    if task_of(workdir) == "detections" or "proposals" not in names:
        return names
    if set(names) != set(SIGNATURES):
        raise ValueError(
            f"signatures must be image_bytes, image_tensor for {workdir}, got {', '.join(names)}: it was trained with --task segments, "
            "and there is no RPN with proposals"
        )
    return tuple(name for name in names if name != "proposals")


def served_form(
    trained: TrainedDetector | TrainedSegmenter,
    xla: bool = False,
    limits: RequestLimits = USUAL_LIMITS,
    nms_on: str = "cpu",
    full_masks: bool = False,
) -> ServedDetector | ServedSegmenter:
    """Returns the form in which a SavedModel holds a network, see `ServedDetector` and `ServedSegmenter`."""
    if isinstance(trained, TrainedSegmenter):
        return ServedSegmenter(trained, xla, limits)
    return ServedDetector(trained, xla, limits, nms_on, full_masks)


def write_signatures(
    trained: TrainedDetector | TrainedSegmenter,
    path: Path,
    names: Sequence[str] = tuple(SIGNATURES),
    served: ServedDetector | ServedSegmenter | None = None,
) -> None:
    """Writes the SavedModel itself.

    Args:
        trained: the detector, or what proposes segments.
        path: folder to make.
        names: keys of `SIGNATURES`.
        served: the form in which it is served; None: the usual one.
    """
    functions = (served or served_form(trained)).functions()
    inputs = {name: [_FILES if name == "image_bytes" else _PIXELS] for name in names}
    # Layers that are made as the functions are traced compute in the precision of those that are made already.
    with dtype_policy(policy_of_export(trained.config.model, trained.precision)):
        write_archive(path, {SIGNATURES[name]: (functions[name], inputs[name]) for name in names})
    write_facts(path, trained)
