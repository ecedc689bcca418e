"""Finds the heads that look at RoIs.

A head is a module here, or an object with the same names, and its loss stands in a module of `kfpn.losses`; `ModelConfig.heads`
says which ones a detector has. The head has

- `build(config, channels, layers, make_units)`: the functional model that reads pooled RoIs (R, size, size, C);
- `LOOKS_AT`: the boxes that it reads at inference: "proposals"; "detections" for a head that reads the final boxes, as the mask
  head of Mask R-CNN does; or the name of a head before it, whose boxes it reads once they are moved. In training a head reads
  the sampled RoIs, or what the head before it has made of them;
- `select(config, nms)`: a function (outputs, rois, image_sizes) -> dict, which is added to the detections. `rois` are the
  `kfpn.modeling.stages.Rois` of a head that reads proposals, and the dict of detections for a head that reads those.

A head that follows another has in the place of `select`

- `moves(config)`: a function (outputs of the head before, its boxes, image_sizes) -> boxes (B, R, 4), which this head reads. They
  stand in its own outputs too, as "boxes";
- `join(config)`, of the last such head: a function (outputs, rois) -> (outputs, rois), after which `select` of the first head
  gives the detections of all.
"""

from typing import Any

from kfpn.modeling.heads import box, cascade, mask

HEADS: dict[str, Any] = {"box": box, **cascade.LATER_STAGES, "mask": mask}
"""Name -> head. All are imported at once, because Keras loads a saved detector only if its layers are known."""


def find_head(name: str) -> Any:
    """Returns the head called `name`, one of `ModelConfig.heads`."""
    return HEADS[name]
