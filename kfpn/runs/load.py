"""Loads the trained detector of a work directory."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from kfpn.runs.workdir import Workdir

if TYPE_CHECKING:
    from kfpn.modeling.submodels import Submodels


def load_trained_detector(workdir: str | os.PathLike, padded: bool = False) -> keras.Model:
    """Loads the trained detector of a work directory, under the current Keras dtype policy.

    Args:
        workdir: work directory of `kfpn train`, finished or not.
        padded: whether the model gets the second input `image_sizes`, see `build_detector`.

    Returns:
        The inference model with the weights of the best evaluation (the last weights without validation data), and the
        attributes `class_names` and `category_ids`, tuples with one entry a label, and `input_config`, the run's resize rule.

    Raises:
        ValueError: if the folder is missing, is not a work directory, or holds no weights or no trained RPN.
    """
    from kfpn.modeling.detector import inference_model

    opened = Workdir(workdir)
    require_trained(opened)
    config = opened.read_config()
    model = inference_model(load_submodels(opened), config.model, padded)
    model.class_names, model.category_ids = opened.read_classes()
    model.input_config = config.input
    return model


def load_fast_rcnn(workdir: str | os.PathLike) -> keras.Model:
    """Loads the detector of a run on fixed proposals.

    Args:
        workdir: work directory of `kfpn train --proposals`, finished or not.

    Returns:
        The model of `fast_rcnn_model`, with the attributes `class_names` and `category_ids`.

    Raises:
        ValueError: if the folder is missing, is not a work directory or holds no weights.
    """
    from kfpn.modeling.fast_rcnn import fast_rcnn_model

    opened = Workdir(workdir)
    require_trained(opened, rpn=False)
    model = fast_rcnn_model(load_submodels(opened), opened.read_config().model)
    model.class_names, model.category_ids = opened.read_classes()
    return model


def load_proposals_model(workdir: str | os.PathLike) -> keras.Model:
    """Loads the first stage of a work directory's detector, for `kfpn.evaluation.recall.evaluate_proposals`.

    Returns:
        The model of `proposals_model`, for 1000 proposals of an image.
    """
    from kfpn.modeling.fast_rcnn import proposals_model

    opened = Workdir(workdir)
    return proposals_model(load_submodels(opened), opened.read_config().model, nms="kernel")


def require_trained(workdir: Workdir, weights: Path | None = None, rpn: bool = True) -> None:
    """Checks that a folder is a work directory that holds trained weights.

    Args:
        workdir: the work directory.
        weights: a file in it to look for; None: the weights for inference.
        rpn: whether the RPN has to be trained: a run on fixed proposals does not train it.

    Raises:
        ValueError: if the folder is missing, is not a work directory, or holds no weights or no trained RPN.
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


def load_submodels(workdir: Workdir, weights: Path | None = None) -> "Submodels":
    """Builds the submodels of the detector of a work directory, with its weights.

    Args:
        workdir: the work directory.
        weights: a file of weights in it; None: the weights for inference.

    Raises:
        ValueError: naming the file, if config or weights can't be read or don't belong together.
    """
    from kfpn.modeling.submodels import build_submodels

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
        raise ValueError(f"{weights} must be weights that Keras saved, got a damaged file{hint}") from error
    except Exception as error:  # Keras raises ValueError, KeyError or the warning, depending on what does not fit.
        raise ValueError(
            f"{weights} must fit the detector that {workdir.config} describes, got other variables; "
            "was one of them replaced, or made by another version of kfpn?"
        ) from error
