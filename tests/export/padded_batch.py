"""Compares exports with Keras on a padded batch of two pictures."""

import numpy as np

from kfpn.modeling.detector import inference_model

SIZES = np.array([[96, 109], [130, 96]], np.int32)
"""Sizes that the tiny detector's rule leaves as they are; their canvas is 160 x 128."""


def canvas_of(pictures, padding=0):
    """Returns the pictures as they are padded below and right, (2, 160, 128, 3) float32."""
    images = np.full((2, 160, 128, 3), padding, np.float32)
    for row, picture in zip(images, pictures, strict=True):
        row[: len(picture), : picture.shape[1]] = picture
    return images


def keras_outputs(trained, images):
    """Returns what the detector gives in Keras, before any export, as arrays."""
    model = inference_model(trained.unfolded, trained.config.model, padded=True)
    outputs = model({"images": images, "image_sizes": SIZES}, training=False)
    return {name: np.array(value) for name, value in outputs.items()}


def require_same_outputs(got, wanted):
    """Checks an export's outputs against those of Keras, masks included where there are any."""
    assert wanted["num_detections"].min() > 0
    np.testing.assert_array_equal(got["num_detections"], wanted["num_detections"])
    np.testing.assert_allclose(got["detection_scores"], wanted["scores"], atol=1e-4)
    np.testing.assert_allclose(got["detection_boxes_pixels"], wanted["boxes"], atol=0.05)
    if "masks" in wanted:
        np.testing.assert_allclose(got["detection_masks"], wanted["masks"], atol=1e-2)
