"""Offers Feature Pyramid Networks for Faster R-CNN in Keras 3: everything that is public is a name of this package."""

import importlib
import os
import sys
import threading
from types import ModuleType
from typing import Any

from kfpn import renamed

__version__ = "0.2.0"

_PLACES = {
    "Config": "kfpn.config.run",
    "Detections": "kfpn.inference.detections",
    "ImagePyramid": "kfpn.inference.image_pyramid",
    "InputConfig": "kfpn.config.input_config",
    "IterableSource": "kfpn.data.formats.iterable",
    "ModelConfig": "kfpn.config.model",
    "ObjectMasks": "kfpn.data.object_masks",
    "OptimizerConfig": "kfpn.config.optimizer_config",
    "Record": "kfpn.data.record",
    "SamplingConfig": "kfpn.config.sampling_config",
    "Segments": "kfpn.inference.segments",
    "Source": "kfpn.data.record",
    "TiledPyramid": "kfpn.inference.tiled_pyramid",
    "Tiles": "kfpn.config.tile_options",
    "Workdir": "kfpn.runs.workdir",
    "auto_config": "kfpn.training.automatic",
    "build_detector": "kfpn.modeling.detector",
    "build_segmenter": "kfpn.modeling.segmenter",
    "callbacks": "kfpn.training.callbacks",
    "dataset": "kfpn.training.datasets",
    "describe_source": "kfpn.data.class_table",
    "draw_detections": "kfpn.plotting.draw_boxes",
    "draw_page": "kfpn.plotting.pyramid_page",
    "evaluate": "kfpn.inference.evaluate",
    "evaluate_proposals": "kfpn.evaluation.recall",
    "export_onnx": "kfpn.export.onnx.write_onnx",
    "export_saved_model": "kfpn.export.saved_model.write_saved_model",
    "from_preset": "kfpn.weights.assign",
    "import_weights": "kfpn.weights.import_weights",
    "list_pretrained": "kfpn.weights.pretrained",
    "load_detector": "kfpn.weights.assign",
    "load_picture": "kfpn.data.image",
    "load_segmenter": "kfpn.runs.load",
    "load_submodels": "kfpn.runs.load",
    "load_weights": "kfpn.weights.assign",
    "model_with_intermediates": "kfpn.inference.inspect_pyramid",
    "open_source": "kfpn.data.formats",
    "paste_masks": "kfpn.ops.mask_paste",
    "predict": "kfpn.inference.predict",
    "propose_segments": "kfpn.inference.propose_segments",
    "preset": "kfpn.config.presets",
    "proposals_model": "kfpn.modeling.fast_rcnn",
    "save_detector": "kfpn.weights.save_detector",
    "train": "kfpn.training.train",
    "trainable": "kfpn.training.trainable",
    "view_image": "kfpn.inference.inspect_pyramid",
}
"""Public name -> the module that holds it. Keras and TensorFlow are imported only when a name is asked for."""

_MODULES = ("callbacks",)
"""Public names that are a module, and not something in one."""

_IMPORTING = threading.RLock()

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        try:
            # Threads that ask for their first names at the same time would import parts of one another's modules.
            with _IMPORTING:
                module = importlib.import_module(_PLACES[name])
                return module if name in _MODULES else getattr(module, name)
        except ModuleNotFoundError as error:
            if error.name and error.name == os.environ.get("KERAS_BACKEND"):
                raise ModuleNotFoundError(
                    f"KERAS_BACKEND must name a library that is installed, got {error.name!r}: install it, or unset "
                    "KERAS_BACKEND to use TensorFlow",
                    name=error.name,
                ) from None
            raise
    raise AttributeError(f"module 'kfpn' has no attribute {name!r}; it offers {', '.join(_PLACES)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})


class _Face(ModuleType):
    # Python makes an imported module an attribute of its package: the old path kfpn.predict must not hide the function.
    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _PLACES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def _register_layers() -> None:
    from kfpn.runs.registration import install_registration

    install_registration()


sys.modules[__name__].__class__ = _Face
renamed.install()
_register_layers()
