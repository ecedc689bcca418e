"""Loads the trained detector of a work directory."""

import dataclasses
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from kfpn.config.model import Task
from kfpn.config.run import Config, UsedPrecision
from kfpn.data.mistaken_files import HEAD, mistaken_for
from kfpn.runs.labels import labels_of
from kfpn.runs.thresholds import read_thresholds
from kfpn.runs.used_precision import in_fastest_form, policy_of_use
from kfpn.runs.workdir import Workdir

if TYPE_CHECKING:
    from kfpn.modeling.segment_submodels import SegmentSubmodels
    from kfpn.modeling.submodels import Submodels


def load_trained_detector(
    workdir: str | os.PathLike,
    padded: bool = False,
    max_detections: int | None = None,
    precision: UsedPrecision | None = None,
) -> keras.Model:
    """Loads the trained detector of a work directory, under the current Keras dtype policy.

    Args:
        workdir: work directory of `kfpn train`, finished or not.
        padded: whether the model gets the second input `image_sizes`, see `build_detector`.
        max_detections: detections an image at most; None: as the run has it.
        precision: another dtype policy, see `kfpn.runs.used_precision`; the model is then in the form that is fastest for it, and
            can't be saved. None: the current one.

    Returns:
        The inference model with the weights of the best evaluation (the last weights without validation data), and the
        attributes `class_names` and `category_ids`, tuples with one entry a label, and `input_config`, the run's resize rule;
        where `kfpn evaluate --best-thresholds` was run also `thresholds`, the best score threshold of each label.

    Raises:
        ValueError: if the folder is missing, is not a work directory, or holds no weights or no trained RPN.
    """
    from kfpn.modeling.detector import inference_model

    opened = Workdir(workdir)
    require_trained(opened)
    config = limited(opened.read_config(), max_detections)
    with policy_of_use(precision, config):
        submodels, nms = load_submodels(opened), "rounds"
        if precision is not None:
            submodels, nms = in_fastest_form(submodels, config)
        model = inference_model(submodels, config.model, padded, nms)
    model.class_names, model.category_ids = labels_of(opened, config)
    model.input_config = config.input
    if (thresholds := read_thresholds(opened)) is not None:
        model.thresholds = thresholds
    return model


def limited(config: Config, max_detections: int | None) -> Config:
    """Returns a run's configuration with another limit of detections; None: as it is.

    Raises:
        ValueError: if the limit is below 1.
    """
    if max_detections is None:
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, max_detections=max_detections))


def load_fast_rcnn(
    workdir: str | os.PathLike, max_detections: int | None = None, precision: UsedPrecision | None = None
) -> keras.Model:
    """Loads the detector of a run on fixed proposals.

    Args:
        workdir: work directory of `kfpn train --proposals`, finished or not.
        max_detections: detections an image at most; None: as the run has it.
        precision: as for `load_trained_detector`.

    Returns:
        The model of `fast_rcnn_model`, with the attributes `class_names` and `category_ids`.

    Raises:
        ValueError: if the folder is missing, is not a work directory or holds no weights.
    """
    from kfpn.modeling.fast_rcnn import fast_rcnn_model

    opened = Workdir(workdir)
    require_trained(opened, rpn=False)
    config = limited(opened.read_config(), max_detections)
    with policy_of_use(precision, config):
        submodels = load_submodels(opened)
        model = fast_rcnn_model(submodels if precision is None else in_fastest_form(submodels, config)[0], config.model)
    model.class_names, model.category_ids = labels_of(opened, config)
    return model


def load_proposals_model(workdir: str | os.PathLike, precision: UsedPrecision | None = None) -> keras.Model:
    """Loads the first stage of a work directory's detector, for `kfpn.evaluation.recall.evaluate_proposals`.

    Args:
        workdir: work directory of `kfpn train`.
        precision: as for `load_trained_detector`.

    Returns:
        The model of `proposals_model`, for 1000 proposals of an image.
    """
    from kfpn.modeling.fast_rcnn import proposals_model

    opened = Workdir(workdir)
    nms = "kernel" if keras.backend.backend() == "tensorflow" else "rounds"
    config = opened.read_config()
    with policy_of_use(precision, config):
        return proposals_model(in_fastest_form(load_submodels(opened), config)[0], config.model, nms=nms)


def require_trained(workdir: Workdir, weights: Path | None = None, rpn: bool = True, task: Task = "detections") -> None:
    """Checks that a folder is a work directory that holds trained weights.

    Args:
        workdir: the work directory.
        weights: a file in it to look for; None: the weights for inference.
        rpn: whether the RPN has to be trained: a run on fixed proposals does not train it.
        task: what the network has to give.

    Raises:
        ValueError: if the folder is missing, is not a work directory, or holds no weights, no trained RPN, or a network of another task.
    """
    weights = weights or workdir.weights
    if not workdir.path.is_dir():
        why = "is a file" if workdir.path.exists() else "does not exist"
        raise ValueError(f"workdir must be a folder, got {str(workdir.path)!r}, which {why}")
    for needed in (workdir.config, workdir.classes):
        if not needed.exists():
            raise ValueError(
                f"workdir must be one that `kfpn train` made, got {str(workdir.path)!r}, which has no {needed.name}"
            )
    _require_task(workdir, task)
    if not weights.exists():
        raise ValueError(
            f"workdir must hold trained weights, got {str(workdir.path)!r} without {weights.name}: no evaluation has finished "
            "yet; go on with `kfpn train`"
        )
    if rpn and (proposals := workdir.read_config().proposals):
        raise ValueError(
            f"workdir must hold a trained RPN, got {str(workdir.path)!r}, which was trained on the proposals of {proposals}: "
            "only `kfpn evaluate` can use it, on the same proposals, and `kfpn train --init`"
        )


def task_of(workdir: str | os.PathLike) -> Task:
    """Returns what the network of a work directory gives; of a folder that is none, "detections"."""
    run = Workdir(workdir)
    return run.read_config().model.task if run.config.exists() else "detections"


def _require_task(workdir: Workdir, task: Task) -> None:
    own = workdir.read_config().model.task
    if own == task:
        return
    if own == "segments":
        raise ValueError(
            f"workdir must hold a detector, got {str(workdir.path)!r}, which was trained with --task segments: kfpn.load_segmenter "
            "loads it, and the commands kfpn evaluate, predict, visualize, benchmark, export saved_model and export onnx can use it"
        )
    raise ValueError(
        f"workdir must be of a run with --task segments, got {str(workdir.path)!r}, which holds a detector: kfpn.load_detector loads it"
    )


def load_segmenter(
    workdir: str | os.PathLike,
    padded: bool = False,
    max_segments: int | None = None,
    precision: UsedPrecision | None = None,
) -> keras.Model:
    """Loads what a run with `--task segments` has trained, under the current Keras dtype policy.

    Args:
        workdir: work directory of `kfpn train --task segments`, finished or not.
        padded: whether the model gets the second input `image_sizes`.
        max_segments: segments an image; None: as the run has it.
        precision: another dtype policy, see `kfpn.runs.used_precision`; None: the current one.

    Returns:
        The model of `kfpn.build_segmenter` with the weights of the best evaluation (the last weights without validation data), and the
        attribute `input_config`, the run's resize rule.

    Raises:
        ValueError: if the folder is missing, is not a work directory, or holds no weights or a detector, or max_segments is below 1.
    """
    from kfpn.modeling.segmenter import segments_model

    opened = Workdir(workdir)
    require_trained(opened, rpn=False, task="segments")
    config = opened.read_config()
    network = config.model if max_segments is None else dataclasses.replace(config.model, max_segments=max_segments)
    with policy_of_use(precision, config):
        submodels = load_segment_submodels(opened)
        fastest = submodels if precision is None else in_fastest_form(submodels, config)[0]
        model = segments_model(fastest, network, padded)
    model.input_config = config.input
    return model


def load_network(workdir: str | os.PathLike) -> keras.Model:
    """Loads the trained network of a work directory, whatever it gives: see `load_trained_detector` and `load_segmenter`."""
    return load_trained_detector(workdir) if task_of(workdir) == "detections" else load_segmenter(workdir)


def load_segment_submodels(workdir: Workdir, weights: Path | None = None) -> "SegmentSubmodels":
    """Builds the submodels of what proposes segments in a work directory, with its weights.

    Args:
        workdir: the work directory.
        weights: as for `load_submodels`.

    Raises:
        ValueError: naming the file, if config or weights can't be read or don't belong together.
    """
    from kfpn.modeling.segment_submodels import build_segment_submodels

    submodels = build_segment_submodels(workdir.read_config().model)
    _load_weights(submodels.weights_model, workdir, weights or workdir.weights)
    return submodels


def load_submodels(workdir: Workdir | str | os.PathLike, weights: Path | None = None) -> "Submodels":
    """Builds the submodels of the detector of a work directory, with its weights.

    Args:
        workdir: the work directory, or its path.
        weights: a file of weights in it; None: the weights for inference.

    Raises:
        ValueError: naming the file, if config or weights can't be read or don't belong together.
    """
    from kfpn.modeling.submodels import build_submodels

    workdir = workdir if isinstance(workdir, Workdir) else Workdir(workdir)
    submodels = build_submodels(workdir.read_config().model)
    _load_weights(submodels.weights_model, workdir, weights or workdir.weights)
    return submodels


def _load_weights(weights_model: keras.Model, workdir: Workdir, weights: Path) -> None:
    hint = "; remove it, and `kfpn train` with the run's options writes it again from the last checkpoint"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras only warns when it leaves random weights in place.
            weights_model.load_weights(weights)
    except OSError as error:
        with open(weights, "rb") as file:
            mistaken = mistaken_for(file.read(HEAD))
        got = f"a file that {mistaken}" if mistaken else f"a damaged file{hint}"
        raise ValueError(f"{weights} must be weights that Keras saved, got {got}") from error
    except Exception as error:  # Keras raises ValueError, KeyError or the warning, depending on what does not fit.
        raise ValueError(
            f"{weights} must fit the detector that {workdir.config} describes, got other variables; "
            "was one of them replaced, or made by another version of kfpn?"
        ) from error
