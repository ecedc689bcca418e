"""Finds the heads that look at RoIs.

A head is a module here, and its loss a module of the same name in `kfpn.losses`; `ModelConfig.heads` says which ones a
detector has. The module has

- `build(config, channels, layers, make_units)`: the functional model that reads pooled RoIs (R, size, size, C);
- `select(config, nms)`: the layer that makes detections of its outputs, see `kfpn.modeling.detector.Detector.select`;
- `LOOKS_AT`: "proposals", or "detections" for a head that looks at the final boxes alone, as that of Mask R-CNN does.
"""

from types import ModuleType

from kfpn.modeling.heads import box

HEADS: dict[str, ModuleType] = {"box": box}
"""Name -> module. All are imported at once: Keras loads a saved detector only where its layers are known."""


def find_head(name: str) -> ModuleType:
    """Returns the module of the head called `name`, one of `ModelConfig.heads`."""
    return HEADS[name]
