"""Chooses what networks that propose segments need, in the place of what detectors need: widths, the learning rate, and the levels' sizes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kfpn.config import auto_numbers as numbers
from kfpn.config.auto_anchors import sides_in_network
from kfpn.config.auto_draft import Draft
from kfpn.config.auto_facts import Facts
from kfpn.config.segment_settings import SEGMENT_CHANNELS
from kfpn.config.unused_options import OF_DETECTORS


def are_segments(draft: Draft) -> bool:
    """Tells whether the run learns segments."""
    return draft["model.task"] == "segments"


def of_segments(settings: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """Returns the settings of a network and its losses that segments have a use for, with their own learning rate and width of the pyramid.

    Args:
        settings: option -> value, of `kfpn.config.auto_numbers.Network`.
        facts: of the weights.
    """
    own = {name: value for name, value in settings.items() if name not in OF_DETECTORS}
    own["optimizer.learning_rate"] = numbers.RATES_OF_SEGMENTS[settings["optimizer.reference_batch"]]
    if facts.weights is None or "pyramid_channels" not in facts.weights.model:
        own["model.pyramid_channels"] = min(settings.get("model.pyramid_channels", SEGMENT_CHANNELS), SEGMENT_CHANNELS)
    return own


def choose_segment_sizes(draft: Draft, facts: Facts) -> None:
    """Chooses the sizes of objects that the levels are for, and says how large the smallest and the largest tenth of the objects are.

    Args:
        draft: with the input's size and the network.
        facts: of the data and the weights. Segments that are trained already keep their sizes.
    """
    sizes = tuple(draft["model.anchor_sizes"])
    if len(sizes) == 1 or not len(facts.data.boxes):
        return
    if facts.weights is not None and facts.weights.model.get("task") == "segments":
        draft.note("sizes of segments", "as the weights bring them")
        return
    boxes, _ = sides_in_network(facts, draft["input.short_side"], draft["input.long_side"])
    larger = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    small, large = np.quantile(larger, (numbers.SIZE_QUANTILE, 1.0 - numbers.SIZE_QUANTILE))
    least = float(np.clip(small, numbers.LEAST_SIZE, numbers.MOST_SIZE))
    chosen = tuple(float(f"{least * 2.0**level:.3g}") for level in range(len(sizes)))
    reason = f"at this size a tenth of the objects has a larger side of {small:.0f} pixels or less, a tenth of {large:.0f} or more"
    draft.put("sizes of segments", {"model.anchor_sizes": chosen}, reason)
