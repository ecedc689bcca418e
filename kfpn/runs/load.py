"""The detectors that work directories hold."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from kfpn.runs.workdir import Workdir

if TYPE_CHECKING:
    from kfpn.modeling.submodels import Submodels


def load_detector(workdir: str | os.PathLike, padded: bool = False) -> keras.Model:
    """Loads the trained detector of a work directory, under the current Keras dtype policy.

    Args:
        workdir: of `kfpn train`, finished or not.
        padded: give the model the second input `image_sizes`, see `build_detector`.

    Returns:
        The inference model with the best weights seen in evaluation (the last, without validation data), and the
        attributes `class_names` and `category_ids`, tuples over labels, and `input_config`, the run's resize rule.

    Raises:
        ValueError: if the folder is missing, is not a work directory or holds no weights yet.
    """
    from kfpn.modeling.detector import inference_model

    files = Workdir(workdir)
    require_trained(files)
    config = files.read_config()
    class_names, category_ids = files.read_classes()
    model = inference_model(load_submodels(files), config.model, padded)
    model.class_names, model.category_ids = class_names, category_ids
    model.input_config = config.input
    return model


def load_fast_rcnn(workdir: str | os.PathLike) -> keras.Model:
    """Loads the detector of a run on fixed proposals, as `load_detector` does.

    Returns:
        The model of `fast_rcnn_model`, with the attributes `class_names` and `category_ids`.
    """
    from kfpn.modeling.fast_rcnn import fast_rcnn_model

    files = Workdir(workdir)
    require_trained(files, rpn=False)
    model = fast_rcnn_model(load_submodels(files), files.read_config().model)
    model.class_names, model.category_ids = files.read_classes()
    return model


def load_proposals_model(workdir: str | os.PathLike) -> keras.Model:
    """Loads the first stage of a work directory's detector, for `kfpn.evaluation.recall.evaluate_proposals`.

    Returns:
        The model of `proposals_model`, for 1000 proposals of an image.
    """
    from kfpn.modeling.fast_rcnn import proposals_model

    files = Workdir(workdir)
    return proposals_model(load_submodels(files), files.read_config().model, nms="kernel")


def require_trained(files: Workdir, weights: Path | None = None, rpn: bool = True) -> None:
    """Raises ValueError if the folder is missing, is not a work directory or holds no weights yet, or no trained RPN.

    Args:
        files: the work directory.
        weights: another file in it than the detector's.
        rpn: whether the RPN has to be trained: after a run on fixed proposals it is not.
    """
    weights = weights or files.weights
    if not files.path.is_dir():
        why = "is a file" if files.path.exists() else "does not exist"
        raise ValueError(f"workdir must be a folder, got {str(files.path)!r}, which {why}")
    for needed in (files.config, files.classes):
        if not needed.exists():
            raise ValueError(
                f"workdir must be one that `kfpn train` made, got {str(files.path)!r}, which has no {needed.name}"
            )
    if not weights.exists():
        raise ValueError(
            f"workdir must hold trained weights, got {str(files.path)!r} without {weights.name}: no evaluation has finished "
            "yet; go on with `kfpn train`"
        )
    if rpn and (proposals := files.read_config().proposals):
        raise ValueError(
            f"workdir must hold a trained RPN, got {str(files.path)!r}, which was trained on the proposals of {proposals}: "
            "only `kfpn evaluate` can use it, on the same proposals, and `kfpn train --init`"
        )


def load_submodels(files: Workdir, weights: Path | None = None) -> "Submodels":
    """Builds the submodels of a work directory's detector, with its weights.

    Args:
        files: the work directory.
        weights: another file in it; None: the detector's.

    Raises:
        ValueError: naming the file, if config or weights can't be read or don't belong together.
    """
    from kfpn.modeling.submodels import build_submodels

    submodels = build_submodels(files.read_config().model)
    _load_weights(submodels.weights_model, files, weights or files.weights)
    return submodels


def _load_weights(weights_model: keras.Model, files: Workdir, weights: Path) -> None:
    again = "; remove it, and `kfpn train` with the run's options writes it again from the last checkpoint"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras warns where it leaves random weights in place
            weights_model.load_weights(weights)
    except OSError as error:
        raise ValueError(f"{weights} must be weights that Keras saved, got a damaged file{again}") from error
    except Exception as error:  # ValueError, KeyError, a warning: by what it is that does not fit
        raise ValueError(
            f"{weights} must fit the detector that {files.config} describes, got other variables; "
            "was one of them replaced, or made by another version of kfpn?"
        ) from error
