"""Identifies weights that others trained by the content of their file, and reads them."""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from kfpn.config.checks import require_local
from kfpn.config.model import Task
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.submodels import Submodels
from kfpn.runs.load import load_segment_submodels, load_submodels, require_trained, task_of
from kfpn.runs.workdir import WEIGHTS, Workdir
from kfpn.weights.application_weights import is_application, read_application
from kfpn.weights.built_detector import variables_of
from kfpn.weights.formats.file_formats import File, read_file, sha256
from kfpn.weights.makers import MAKERS
from kfpn.weights.makers.foreign_arrays import ForeignArrays
from kfpn.weights.makers.trained_weights import Tensor, TrainedWeights
from kfpn.weights.pretrained import fetch, find_pretrained
from kfpn.weights.shipped import SHIPPED, read_shipped

PathLike = str | os.PathLike

WRAPPERS = ("model", "state_dict", "model_state_dict", "blobs")
"""Keys under which training scripts keep the arrays in their files."""


def read_trained_weights(source: PathLike, task: Task = "detections") -> TrainedWeights:
    """Reads weights, and tells by their content which network they belong to.

    Args:
        source: a file (PyTorch, safetensors, detectron2's or Caffe2's pickle, HDF5 of keras.applications), a work directory
            or the `.weights.h5` in one, or a name of `list_pretrained()`, which is downloaded once, or `kfpn:small`, which
            ships with the package, or a backbone `keras:NAME` of keras.applications, with the ImageNet weights that Keras downloads.
        task: of the network that takes them. Weights that were trained with `--task segments` fit no detector.

    Raises:
        ValueError: with the file's name, if it can't be read, is damaged or unsafe, is of an unknown kind, or its tensors
            are not those of a network that kfpn has.
    """
    require_local("weights", source)
    text = os.path.expanduser(os.fspath(source))
    if text in SHIPPED:
        return read_shipped(text)
    if is_application(text):
        return read_application(text)
    path = fetch(text) if ":" in text and not os.path.exists(text) else Path(text)
    if path.is_dir():
        return _read_own(path / WEIGHTS, task)
    if path.suffix == ".keras" and path.exists():
        raise ValueError(
            f"{path}: must be a file of weights or a work directory, got a whole Keras model: load it with "
            f"keras.models.load_model({str(path)!r})"
        )
    if path.name.endswith(".weights.h5") and (path.parent / "config.json").exists():
        return _read_own(path, task)
    return _read_foreign(read_file(path))


def _read_foreign(file: File) -> TrainedWeights:
    foreign, in_hdf5 = _foreign_arrays(file), file.kind == "hdf5"
    for maker in MAKERS:
        if maker.in_hdf5 == in_hdf5 and maker.recognises(foreign):
            return _with_known_epsilon(maker.read(foreign))
    names = sorted(foreign.arrays)[:3]
    if in_hdf5:
        known = ", ".join(maker.networks for maker in MAKERS if maker.in_hdf5)
        raise ValueError(
            f"{file.path}: must be an HDF5 file of {known}, got other names, such as {names}. "
            "kfpn's own .weights.h5 must lie beside the config.json of its work directory"
        )
    known = ", ".join(maker.networks for maker in MAKERS)
    raise ValueError(
        f"{file.path}: must hold weights of a known kind ({known}, and kfpn's own work directories), "
        f"got {len(foreign.arrays)} arrays with other names, such as {names}"
    )


def _foreign_arrays(file: File) -> ForeignArrays:
    content = file.content
    for key in WRAPPERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    # DataParallel puts "module." before all names, and torch.compile "_orig_mod.".
    arrays = {
        re.sub(r"^((module|_orig_mod)\.)+", "", str(name)): value
        for name, value in content.items()
        if isinstance(value, np.ndarray)
    }
    return ForeignArrays(str(file.path), arrays, str(file.content.get("__author__", "")))


def _with_known_epsilon(trained: TrainedWeights) -> TrainedWeights:
    """Drops the note on an assumed epsilon for torchvision's own COCO file, whose epsilon is known to be 0."""
    known = find_pretrained("torchvision:fasterrcnn_resnet50_fpn_coco")
    if trained.model.get("norm_epsilon") == 0.0 and sha256(trained.path) == known.sha256:
        return dataclasses.replace(trained, notes=())
    return trained


def _read_own(weights: Path, task: Task) -> TrainedWeights:
    workdir = Workdir(weights.parent)
    own = task_of(workdir.path)
    # Segments start from detectors too, but detectors do not start from segments.
    require_trained(workdir, weights, rpn=False, task=own if task == "segments" else "detections")
    config = workdir.read_config()
    submodels: Submodels | SegmentSubmodels
    if own == "segments":
        submodels, kind = load_segment_submodels(workdir, weights), f"kfpn segments {config.model.backbone} FPN"
    else:
        submodels = load_submodels(workdir, weights)
        kind = f"kfpn Faster R-CNN {config.model.backbone} FPN, {config.model.num_classes} classes"
    class_names, category_ids = workdir.read_classes()
    tensors = {
        key: Tensor(key, keras.ops.convert_to_numpy(variable), tuple(variable.shape))
        for key, variable in variables_of(submodels).items()
    }
    return TrainedWeights(
        path=str(weights),
        kind=kind,
        model=dict(vars(config.model)),
        sampling=dict(vars(config.sampling)),
        tensors=tensors,
        class_names=class_names,
        category_ids=category_ids,
        input={name: value for name, value in vars(config.input).items() if name != "keep_empty"},
    )
