"""Makes a detector and batches that are small enough to train in a test, on any backend."""

import dataclasses

import keras
import numpy as np

import kfpn
from kfpn.losses.training_losses import noise_shapes
from tests.modeling import tiny

SAMPLING = {"rpn_batch": 32, "roi_batch": 16}
SMALL = {"norm": "bn", "backbone_width": 8, "pyramid_channels": 16, "pre_nms_train": 80, "post_nms_train": 50}
LOSSES = ["rpn_class", "rpn_box", "roi_class", "roi_box"]


def detector(class_names=None, **changes):
    """Returns a small detector with the same weights each time on one backend."""
    keras.utils.set_random_seed(5)
    return kfpn.build_detector(**dataclasses.asdict(tiny.config(**{**SMALL, **changes})), class_names=class_names)


def batch(number=0, boxes=3, noise=True, size=(64, 96), **changes):
    """Returns a batch of two images, with the samplers' noise."""
    config = kfpn.Config(model=tiny.config(**{**SMALL, **changes}))
    rng = np.random.default_rng(number)
    start = rng.uniform(0, 30, (2, boxes, 2))
    made = {
        "images": np.stack([tiny.image(*size, seed=number + i) for i in range(2)]),
        "image_sizes": np.full((2, 2), size, "int32"),
        "gt_boxes": np.concatenate([start, start + rng.uniform(8, 30, (2, boxes, 2))], -1).astype("float32"),
        "gt_labels": rng.integers(0, 3, (2, boxes)).astype("int32"),
        "gt_crowd": np.zeros((2, boxes), bool),
    }
    if config.model.mask:
        made["gt_has_mask"] = np.ones((2, boxes), bool)
        made["gt_masks"] = rng.integers(0, 2, (2, boxes, 112, 112)).astype("uint8")
    shapes = noise_shapes(config, *size, boxes).items() if noise else ()
    return made | {f"noise_{name}": rng.uniform(size=(2, *shape)).astype("float32") for name, shape in shapes}


def weights_of(model):
    """Returns the weights of a detector as arrays of a file."""
    return {f"weight_{i}": keras.ops.convert_to_numpy(variable) for i, variable in enumerate(model.weights)}


def set_weights(model, arrays):
    """Gives a detector weights that `weights_of` returned."""
    for i, variable in enumerate(model.weights):
        variable.assign(arrays[f"weight_{i}"])
