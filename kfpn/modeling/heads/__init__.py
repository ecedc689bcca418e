"""Finds the heads that look at RoIs.

A head is a module here, and its loss a module of the same name in `kfpn.losses`; `ModelConfig.heads` says which ones a
detector has. The module has

- `build(config, channels, layers, make_units)`: the functional model that reads pooled RoIs (R, size, size, C);
- `LOOKS_AT`: the boxes that it reads at inference: "proposals", or "detections" for a head that reads the final boxes, as
  the mask head of Mask R-CNN does. In training every head reads the sampled RoIs;
- `select(config, nms)`: a function (outputs, rois, image_sizes) -> dict, which is added to the detections. `rois` are the
  `kfpn.modeling.detector.Rois` of a head that reads proposals, and the dict of detections for a head that reads those.
"""

from types import ModuleType

from kfpn.modeling.heads import box, mask

HEADS: dict[str, ModuleType] = {"box": box, "mask": mask}
"""Name -> module. All are imported at once, because Keras loads a saved detector only if its layers are known."""


def find_head(name: str) -> ModuleType:
    """Returns the module of the head called `name`, one of `ModelConfig.heads`."""
    return HEADS[name]
