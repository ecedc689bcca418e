"""Compares batches of images of different sizes with what torch computes on them, padded as torchvision and detectron2 pad."""

import numpy as np
import pytest

from kfpn.weights.identify import read_trained_weights
from tests.weights.foreign import detectron2, features, heads, near, rpn, torchvision, trunk, write
from tests.weights.import_foreign import imported

SIZES = ((75, 101), (60, 130))
CANVAS = (96, 160)
"""The largest height and the largest width, each padded to a multiple of 32."""


def torchvision_input(image):
    return (image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)


def detectron2_input(image):
    return image[..., ::-1] - (103.53, 116.28, 123.675)


MAKERS = {
    "torchvision": (torchvision, "resnet18", torchvision_input, "3x3"),
    "detectron2": (detectron2, "resnet50", detectron2_input, "1x1"),
}


@pytest.mark.filterwarnings("ignore:.*pixel_mean")
@pytest.mark.parametrize("maker", MAKERS)
def test_every_number_of_a_batch_is_the_library_s(tmp_path, maker):
    write_names, backbone, normalise, stride_on = MAKERS[maker]
    units = trunk(backbone)
    layers = heads(units, background_first=maker == "torchvision")
    trained, submodels = imported(write(tmp_path / "model.pkl", write_names(units, layers)))
    assert trained.model["padding"] == "foreign"
    rng = np.random.default_rng(0)
    images = np.full((2, *CANVAS, 3), 37, np.float32)  # what a caller leaves in the padding does not matter
    normalised = np.zeros((2, *CANVAS, 3))
    for i, (height, width) in enumerate(SIZES):
        images[i, :height, :width] = rng.integers(0, 256, (height, width, 3))
        normalised[i, :height, :width] = normalise(images[i, :height, :width])
    levels = submodels.padded_features({"images": images, "image_sizes": np.array(SIZES, np.int32)})
    outputs = submodels.rpn(levels)
    for i in range(2):
        wanted = features(units, layers, normalised[i : i + 1].transpose(0, 3, 1, 2), stride_on=stride_on)
        for number, level in enumerate(wanted):
            near(levels[f"P{number + 2}"][i : i + 1], np.transpose(level.numpy(), (0, 2, 3, 1)))
            logits, deltas = rpn(layers, level)
            near(outputs["logits"][number][i], logits)
            near(outputs["deltas"][number][i], deltas[:, [1, 0, 3, 2]])


def test_a_backbone_alone_brings_no_padding(tmp_path):
    from tests.weights.foreign import torchvision_backbone

    trained = read_trained_weights(write(tmp_path / "m.pkl", torchvision_backbone(trunk())))
    assert "padding" not in trained.model
