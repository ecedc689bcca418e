"""Reads one folder of a library's reference numbers, and imports its weights into a detector."""

import dataclasses
import functools
import importlib.util
import pickle
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kfpn.config.model import ModelConfig
from kfpn.modeling.backbones import frozen_layers, resnet
from kfpn.modeling.layers import Normalize, PadToMultiple, SharedLayers
from kfpn.modeling.submodels import Submodels, build_submodels
from kfpn.modeling.units import Units
from kfpn.weights.assign import assign_weights, model_config
from kfpn.weights.built_detector import variables_of
from kfpn.weights.identify import read_trained_weights
from kfpn.weights.makers.trained_weights import TrainedWeights

FOLDERS = ("torchvision_r50", "detectron2_r50", "torchvision_r50_301x437", "detectron2_r50_301x437")
XYXY = [1, 0, 3, 2]  # the order that turns yxyx into xyxy, and (dy, dx, dh, dw) into (dx, dy, dw, dh)


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        stage: what was compared.
        value: how far kfpn's numbers are from the reference's.
        limit: the largest value that is allowed.
        unit: of both. "found of N" is a count: the value must then be at least the limit.
    """

    stage: str
    value: float
    limit: float
    unit: str

    @property
    def holds(self) -> bool:
        """Whether the value keeps the limit."""
        return self.value >= self.limit if self.unit.startswith("found") else self.value <= self.limit


class Reference:
    """One folder of reference numbers, which torchvision or detectron2 computed.

    Args:
        folder: with infer.npz, train.npz and weights.npz; weights.py lies beside it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.name = folder.name
        self.background_first = folder.name.startswith("torchvision")
        spec = importlib.util.spec_from_file_location("reference_weights", folder.parent / "weights.py")
        self.rule = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.rule)
        self.infer = np.load(folder / "infer.npz")
        self.train = np.load(folder / "train.npz") if (folder / "train.npz").exists() else None

    def write_checkpoint(self, where: Path) -> Path:
        """Writes the weights as the library does: .safetensors with torchvision's names, or .pkl with detectron2's."""
        state = self.rule.state(str(self.folder))
        if self.background_first:
            from safetensors.numpy import save_file

            path = where / f"{self.name}.safetensors"
            save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, path)
        else:
            path = where / f"{self.name}.pkl"
            with open(path, "wb") as file:
                pickle.dump({"model": state, "__author__": "Detectron2 Model Zoo"}, file)
        return path

    def compare(self, key: str, array: np.ndarray, skip: np.ndarray | None = None) -> float:
        """Returns the largest difference from the tensor `key` of infer.npz, in standard deviations of that tensor.

        Args:
            key: name of the reference's tensor.
            array: kfpn's numbers, in the reference's layout.
            skip: bool, same shape: elements that are not compared.
        """
        shape, values, whole = self.rule.expected(self.infer, key)
        if tuple(array.shape) != tuple(shape):
            raise ValueError(f"{key} must have shape {shape}, got {array.shape}")
        std = float(np.std(values)) if whole else float(self.infer[f"{key}/mean_std"][1])
        own = array if whole else self.rule.compact(array, len(values))
        difference = np.abs(np.asarray(own, np.float64) - values)
        if skip is not None:
            difference = np.where(skip if whole else self.rule.compact(skip, len(values)), 0.0, difference)
        return float(difference.max()) / max(std, 1e-12)


@dataclasses.dataclass
class Imported:
    """A detector with a reference's weights.

    Attributes:
        reference: where the weights come from.
        trained: what was read from the reference's file.
        config: with the reference's thresholds and sampling.
        submodels: with the weights.
        backbone: images -> C2..C5, with the weights.
    """

    reference: Reference
    trained: TrainedWeights
    config: ModelConfig
    submodels: Submodels
    backbone: keras.Model

    @functools.cached_property
    def levels(self) -> dict[str, tf.Tensor]:
        """The pyramid's levels of the reference's image."""
        return self.submodels.features(image_of(self.reference.infer)[0], training=False)


def import_reference(reference: Reference) -> Imported:
    """Writes a reference's weights to a file and imports it."""
    with tempfile.TemporaryDirectory() as folder:
        path = reference.write_checkpoint(Path(folder))
        trained = read_trained_weights(path)
        changes: dict[str, Any] = {"score_threshold": float(reference.infer["score_thresh"])}
        if not reference.background_first:
            changes["sampling_ratio"] = 2  # the reference was made with 2; detectron2's default is 0
        config = model_config(trained, **changes)
        submodels = build_submodels(config)
        assign_weights(trained, submodels, vars(config) | {"sampling_ratio": trained.model["sampling_ratio"]})
    units = Units(config, SharedLayers(frozen_layers(config)))
    images = keras.Input((None, None, 3))
    normal = PadToMultiple()(Normalize(config.pixel_mean, config.pixel_std)(images))
    backbone = keras.Model(images, list(resnet.build(units, normal).values()))
    weights = variables_of(submodels)
    for key, variable in variables_of(backbone).items():
        variable.assign(weights[key])
    return Imported(reference, trained, config, submodels, backbone)


def nchw(x: Any) -> np.ndarray:
    return np.transpose(np.asarray(x), (0, 3, 1, 2))


def to_xyxy(boxes: Any) -> np.ndarray:
    return np.asarray(boxes)[..., XYXY]


def image_of(data: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the image of an .npz file as a batch of one, (1, H, W, 3) float32, and its size (1, 2)."""
    image = data["image"][None].astype(np.float32)
    return tf.constant(image), tf.constant([image.shape[1:3]], tf.int32)
