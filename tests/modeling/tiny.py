"""Makes detectors that are small enough for every test."""

import numpy as np

from kfpn.config.model import ModelConfig

SETTINGS = {
    "backbone_width": 32,
    "pyramid_channels": 32,
    "head_width": 32,
    "anchor_sizes": (8.0, 16.0, 32.0, 64.0, 128.0),
    "pre_nms_test": 60,
    "post_nms_test": 40,
    "max_detections": 20,
    "score_threshold": 0.0,
    "freeze_stages": 0,
}
FOREIGN = {
    "round_anchors": True,
    "anchor_strides": "image",
    "min_proposal_size": 1e-3,
    "min_detection_size": 0.01,
    "sampling_ratio": 0,
    "norm_epsilon": 1e-3,
}
"""The settings of weights from other libraries: anchors depend on the image's size, and samples on the RoI's size."""


def config(**changes) -> ModelConfig:
    return ModelConfig(**{"num_classes": 3, "backbone": "resnet18", "norm": "gn", **SETTINGS, **changes})


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype("uint8")


def shake(model, seed=0):
    """Gives norms and biases random values, because with 1 and 0 the effects of padding would not show."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if len(variable.shape) == 1:
            low, high = (0.5, 1.5) if variable.path.endswith(("gamma", "variance")) else (-0.3, 0.3)
            variable.assign(rng.uniform(low, high, variable.shape))


def detect(model, inputs):
    """Runs a detector without compiling it, because XLA would compile for longer than the test runs."""
    return {key: np.array(value) for key, value in model(inputs, training=False).items()}


def require_same_detections(model, other, inputs):
    """Checks that two detectors give the same, bit for bit."""
    expected, got = detect(model, inputs), detect(other, inputs)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, name)
