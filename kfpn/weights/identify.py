"""Which of the known kinds a checkpoint is, and what it says."""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from kfpn.runs.load import load_submodels, require_trained
from kfpn.runs.workdir import WEIGHTS, Workdir
from kfpn.weights.built_detector import variables_of
from kfpn.weights.formats.file_formats import File, read_file, sha256
from kfpn.weights.makers import detectron2, torchvision
from kfpn.weights.makers import keras_applications as applications
from kfpn.weights.makers.trained_weights import Tensor, TrainedWeights
from kfpn.weights.pretrained import fetch, find

PathLike = str | os.PathLike

KNOWN = (
    "torchvision's fasterrcnn_resnet*_fpn and ResNets, detectron2's faster_rcnn_R_*_FPN and ResNets, "
    "keras.applications' ResNet-50, 101, 152, and kfpn's own work directories"
)


def read_trained_weights(source: PathLike) -> TrainedWeights:
    """Reads a checkpoint and says what it is, by its content.

    Args:
        source: a file (PyTorch, safetensors, detectron2's or Caffe2's pickle, HDF5 of keras.applications), a work directory
            or the `.weights.h5` in one, or a name of `list_pretrained()`, which is downloaded once.

    Raises:
        ValueError: naming the file, if it can't be read, is damaged or unsafe, is of an unknown kind, or its tensors are
            not those of such a network.
    """
    text = os.path.expanduser(os.fspath(source))
    path = fetch(text) if ":" in text and not os.path.exists(text) else Path(text)
    if path.is_dir():
        return _own(path / WEIGHTS)
    if path.name.endswith(".weights.h5") and (path.parent / "config.json").exists():
        return _own(path)
    return _recognise(read_file(path))


def _recognise(file: File) -> TrainedWeights:
    path, content = str(file.path), file.content
    if file.kind == "hdf5":
        content = applications.short_names(content)
        if applications.is_applications(content):
            return applications.read(path, content)
        raise ValueError(
            f"{path}: must be an HDF5 file of keras.applications' ResNet-50, 101 or 152, got other names, such as "
            f"{sorted(file.content)[:3]}. kfpn's own .weights.h5 must lie beside the config.json of its work directory"
        )
    author = str(content.get("__author__", ""))
    # What training scripts wrap a state_dict in.
    for key in ("model", "state_dict", "model_state_dict", "blobs"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    arrays = {_plain_name(name): value for name, value in content.items() if isinstance(value, np.ndarray)}
    if torchvision.is_torchvision(arrays):
        trained = torchvision.read(path, arrays)
        return _with_known_epsilon(trained)
    if detectron2.is_caffe2(arrays):
        return detectron2.read_caffe2(path, arrays)
    if detectron2.is_detectron2(arrays):
        return detectron2.read(path, arrays, author)
    other = torchvision.is_other(arrays)
    got = other or f"{len(arrays)} arrays with other names, such as {sorted(arrays)[:3]}"
    raise ValueError(f"{path}: must hold weights of a known kind ({KNOWN}), got {got}")


def _plain_name(name: str) -> str:
    # DataParallel and torch.compile put their own name in front.
    return re.sub(r"^((module|_orig_mod)\.)+", "", str(name))


def _with_known_epsilon(trained: TrainedWeights) -> TrainedWeights:
    """torchvision's own COCO file needs no warning: its epsilon is known."""
    known = find("torchvision:fasterrcnn_resnet50_fpn_coco")
    if trained.model.get("norm_epsilon") == 0.0 and sha256(trained.path) == known.sha256:
        return dataclasses.replace(trained, notes=())
    return trained


def _own(weights: Path) -> TrainedWeights:
    files = Workdir(weights.parent)
    require_trained(files, weights, rpn=False)
    submodels = load_submodels(files, weights)
    config = files.read_config()
    names, ids = files.read_classes()
    tensors = {
        key: Tensor(key, keras.ops.convert_to_numpy(variable), tuple(variable.shape))
        for key, variable in variables_of(submodels).items()
    }
    kind = f"kfpn Faster R-CNN {config.model.backbone} FPN, {config.model.num_classes} classes"
    return TrainedWeights(
        str(weights),
        kind,
        dict(vars(config.model)),
        dict(vars(config.sampling)),
        tensors,
        names,
        ids,
        input=dict(vars(config.input)),
    )
