"""Tells whether a data set has masks."""

from typing import Any

from kfpn.data.annotations import AnnotatedSource


def boxes_alone(source: Any) -> str:
    """Returns why a detector's masks can't be measured on a source; nothing where they can, or where that is not known."""
    if not isinstance(source, AnnotatedSource) or have_masks(source):
        return ""
    read = "no object has a mask" if source.annotations.masks is not None else "masks were not read, or there are none"
    advice = "" if source.annotations.masks is not None else "; kfpn.open_source(..., masks=True) reads them"
    return f"{source.name}: {read}, so AP is measured of boxes alone{advice}"


def have_masks(source: Any) -> bool:
    """Returns whether a source keeps annotations of which one or more have masks; those of crowd, which teach and measure nothing, don't count."""
    if not isinstance(source, AnnotatedSource) or source.annotations.masks is None:
        return False
    return bool((source.annotations.masks.exists & ~source.annotations.crowd).any())
