"""Looks at an image in tiles with a loaded model, which brings its own settings."""

from typing import Any

import keras

from kfpn.config.model import ModelConfig
from kfpn.config.run import Config
from kfpn.config.tile_options import Tiles
from kfpn.data.jpeg_fraction import AnyImage
from kfpn.evaluation.images_at_once import ImagesAtOnce
from kfpn.evaluation.source_pass import detect_function
from kfpn.evaluation.tiles_of_image import detect_in_tiles, tiles_at_once, tiles_of_image
from kfpn.modeling.heads.box import SelectDetections


def detect_with_model(model: keras.Model, image: AnyImage, tiles: Tiles) -> dict[str, Any]:
    """Returns the detections of one image, as `detect_image` gives them.

    Args:
        model: of `kfpn.load_detector`, with `padded` or without.
        image: (H, W, 3) uint8 RGB, or an image as `decode_picture` gives it, decoded whole.
        tiles: with a side.

    Raises:
        ValueError: if `image` is not such an image.
    """
    padded = isinstance(model.input, dict)
    # The compiled functions are kept with the model, so that the next call compiles only tiles of new sizes.
    if not hasattr(model, "compiled_detector"):
        model.compiled_detector = detect_function(model)
    if not padded and not hasattr(model, "compiled_for_tiles"):
        model.compiled_for_tiles = _of_pixels(model.compiled_detector)
    call = model.compiled_detector if padded else model.compiled_for_tiles
    settings = _settings(model)
    tile_source = tiles_of_image(image, tiles)
    at_once = ImagesAtOnce(tiles_at_once(tile_source, Config(model=settings, input=model.input_config)))
    divisor = None if padded else 1
    return detect_in_tiles([(call, model.input_config)], tile_source, settings, at_once, divisor).merged()[0]


def _of_pixels(detect: Any) -> Any:
    """Returns a function of {images, image_sizes} that calls one of images without padding."""

    def call(inputs: dict[str, Any]) -> Any:
        return detect(keras.ops.cast(inputs["images"], "float32"))

    return detect_function(call)


def _settings(model: keras.Model) -> ModelConfig:
    """Returns a configuration with the settings by which a model selects its detections."""
    selects = next((layer for layer in model.layers if isinstance(layer, SelectDetections)), SelectDetections())
    return ModelConfig(
        nms_iou=float(selects.iou_threshold),
        score_threshold=float(selects.score_threshold),
        max_detections=int(selects.count),
    )
