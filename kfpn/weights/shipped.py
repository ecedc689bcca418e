"""Reads the weights that ship with the package: a small detector, trained on made pictures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kfpn.config.auto_numbers import SHIPPED as SMALL
from kfpn.config.run import Config, from_dict, to_dict
from kfpn.runs.load import load_submodels
from kfpn.runs.workdir import WEIGHTS, Workdir
from kfpn.weights.built_detector import variables_of
from kfpn.weights.makers.trained_weights import Tensor, TrainedWeights

SHIPPED: Mapping[str, Path] = {SMALL: Path(__file__).parent / "shipped" / "small.npz"}
"""Name -> file in the package: an .npz of float16 arrays, and `settings`, a JSON text."""


def read_shipped(name: str) -> TrainedWeights:
    """Reads weights that ship with the package.

    Args:
        name: a key of `SHIPPED`.

    Raises:
        ValueError: for any other name.
    """
    if name not in SHIPPED:
        raise ValueError(f"name must be {' or '.join(SHIPPED)}, got {name!r}")
    with np.load(SHIPPED[name], allow_pickle=False) as file:
        settings: dict[str, Any] = json.loads(str(file["settings"]))
        tensors = {key: file[key].astype(np.float32) for key in file.files if key != "settings"}
    config = from_dict(Config, settings["config"])
    return TrainedWeights(
        path=name,
        kind=f"Faster R-CNN {config.model.backbone} FPN of width {config.model.backbone_width}, made pictures",
        model=dict(vars(config.model)),
        sampling=dict(vars(config.sampling)),
        tensors={key: Tensor(key, value, value.shape) for key, value in tensors.items()},
        class_names=tuple(settings["class_names"]),
        category_ids=tuple(range(1, len(settings["class_names"]) + 1)),
        input={field: value for field, value in vars(config.input).items() if field != "keep_empty"},
    )


def write_shipped(workdir: Path, path: Path) -> None:
    """Writes the best weights of a run in the form that `read_shipped` reads.

    Args:
        workdir: of the run.
        path: the .npz file.
    """
    run = Workdir(workdir)
    config = run.read_config()
    class_names, _ = run.read_classes()
    kept = to_dict(config)
    settings = {
        "class_names": list(class_names),
        "config": {section: kept[section] for section in ("model", "sampling", "input")},
    }
    arrays = {
        key: keras.ops.convert_to_numpy(variable).astype(np.float16)
        for key, variable in variables_of(load_submodels(run, run.path / WEIGHTS)).items()
    }
    unfit = [key for key, value in arrays.items() if not np.isfinite(value).all()]
    if unfit:
        raise ValueError(f"weights must fit into float16, got larger ones in {', '.join(unfit)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, settings=np.array(json.dumps(settings)), **arrays)
