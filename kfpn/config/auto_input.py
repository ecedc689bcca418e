"""Chooses the size of the network's input, so that the objects are seen well and no image is enlarged."""

import math
from collections.abc import Sequence

import numpy as np

from kfpn.config import auto_numbers as numbers
from kfpn.config.auto_anchors import overlaps_of_held
from kfpn.config.auto_draft import Draft
from kfpn.config.auto_facts import Facts, MachineFacts


def choose_input(draft: Draft, facts: Facts) -> None:
    """Chooses the short and the long side to which images are resized.

    Args:
        draft: with the network.
        facts: of the data, the machine and the weights. A whole detector keeps its size, because its anchors belong to it. On a
            CPU it takes a smaller one, if objects overlap these anchors as well there.
    """
    if facts.weights is not None and facts.weights.is_detector:
        _choose_detectors_input(draft, facts)
        return
    sizes = facts.data.image_sizes.astype(np.float64)
    ratio = float(np.quantile(sizes.max(axis=1) / sizes.min(axis=1), numbers.LONG_QUANTILE))
    if "input.short_side" in draft.given:
        side, reason = int(draft["input.short_side"]), "the short side is given"
    else:
        side, reason = short_side_of(facts)
    if "input.long_side" in draft.given:
        side = min(side, int(draft["input.long_side"]))
    long = _rounded_up(side * min(max(ratio, 1.0), numbers.MOST_LONG))
    long = max([long, *draft["input.train_short_sides"]])
    draft.put("input size", {"input.short_side": side, "input.long_side": long}, reason)


def _choose_detectors_input(draft: Draft, facts: Facts) -> None:
    own, long = draft["input.short_side"], draft["input.long_side"]
    is_given = bool({"input.short_side", "input.long_side", "input.train_short_sides"} & set(draft.given))
    if is_given or facts.machine.gpus or draft["input.train_short_sides"] or not len(facts.data.boxes):
        why = "as it is given" if is_given else "as the weights were trained"
        draft.note("input size", f"{why}, short side {own}")
        return
    sides = [side for side in numbers.CPU_SIDES_OF_DETECTORS if side < own]
    tried = [(side, _rounded_up(side * long / own)) for side in sides] + [(own, long)]
    means = [float(overlaps_of_held(draft, facts, *size).mean()) for size in tried]
    best = next(place for place, mean in enumerate(means) if mean >= means[-1] - numbers.LOST_OVERLAP)
    if tried[best] == (own, long):
        draft.note("input size", f"as the weights were trained, short side {own}")
        return
    reason = (
        f"the weights' own {own} pixels cost {(own / tried[best][0]) ** 2:.1f} times as much; objects overlap their best "
        f"anchors by {means[best]:.2f} on average, {means[-1]:.2f} there"
    )
    draft.put("input size", dict(zip(("input.short_side", "input.long_side"), tried[best], strict=True)), reason)


def short_side_of(facts: Facts) -> tuple[int, str]:
    """Returns the short side in pixels at which objects are seen well, and the reason.

    Args:
        facts: of the data and the machine.
    """
    native = float(np.median(facts.data.image_sizes.min(axis=1)))
    if not len(facts.data.boxes):
        most = min(native, _most_side(facts.machine, 0.0)[0], float(numbers.MOST_SIDE))
        return max(min(numbers.LEAST_SIDE, _rounded_up(native)), _rounded_down(most)), "no box is known"
    shares = np.sqrt(_areas(facts.data.boxes)) / facts.data.box_image_sizes.min(axis=1)
    small, half = np.quantile(shares, (numbers.SMALL_QUANTILE, 0.5))
    of_small, of_half = numbers.GPU_SEEN if facts.machine.gpus else numbers.CPU_SEEN
    wanted = max(of_small / small, of_half / half)
    most, of_machine = _most_side(facts.machine, of_small / small)
    limits = [
        (wanted, f"a fifth of the objects are below {small:.1%} of the image's short side and half below {half:.1%}"),
        (native, f"half of the images have a short side of {native:.0f} or less"),
        (most, f"the most on {of_machine}, though smaller objects would want {wanted:.0f}"),
        (float(numbers.MOST_SIDE), f"the most at all, though smaller objects would want {wanted:.0f}"),
    ]
    value, reason = min(limits, key=lambda limit: limit[0])
    # Images are not enlarged: a native side is rounded down, what objects want is rounded up.
    side = _rounded_up(value) if value == wanted else _rounded_down(value)
    least = min(numbers.LEAST_SIDE, _rounded_up(native))
    side = max(least, side)
    seen = (
        f"the objects are then {small * side:.0f} pixels and more (four fifths) and {half * side:.0f} and more (half)"
    )
    return side, f"{reason}; {seen}"


def _most_side(machine: MachineFacts, of_small: float) -> tuple[float, str]:
    if machine.gpus:
        gib = (machine.gpu_memory or numbers.UNKNOWN_MEMORY) / 2**30
        return float(_last_reached(numbers.GPU_SIDES, gib)), f"a GPU of {gib:.0f} GiB"
    most = _last_reached(numbers.CPU_SIDES, machine.cores)
    if of_small > most:
        most = _last_reached(numbers.CPU_SIDES_OF_SMALL, machine.cores)
    return float(most), f"a CPU of {machine.cores} cores"


def _last_reached(table: Sequence[tuple[int, int]], value: float) -> int:
    """Returns what a table says from the last bound on that `value` reaches."""
    return [entry for bound, entry in table if bound <= value or bound == table[0][0]][-1]


def _rounded_up(value: float) -> int:
    return math.ceil(value / numbers.SIDE_STEP) * numbers.SIDE_STEP


def _rounded_down(value: float) -> int:
    return int(value) // numbers.SIDE_STEP * numbers.SIDE_STEP


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).prod(axis=1)
