"""Chooses the settings of a run from facts of its data, its machine and its weights: the rules of the preset `auto`."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from kfpn.config import auto_numbers as numbers
from kfpn.config.auto_anchors import choose_anchors
from kfpn.config.auto_draft import ChoiceLine, Draft, nested
from kfpn.config.auto_facts import Facts
from kfpn.config.auto_input import choose_input
from kfpn.config.auto_segments import are_segments, choose_segment_sizes, of_segments
from kfpn.config.backbone_names import is_keras_model
from kfpn.config.fast_precision import fast_precision
from kfpn.config.run import Config
from kfpn.config.unused_options import OF_DETECTORS

CHOSEN = frozenset(
    (
        *numbers.SMALL.settings, *numbers.LARGE.settings, *numbers.TRAINED.settings, *numbers.SHIPPED_NETWORK,
        "input.short_side", "input.long_side", "input.repeat_threshold", "batch_size", "init", "model.anchor_sizes",
        "model.canonical_size", "model.max_detections", "steps", "eval_every", "checkpoint_every",
        "optimizer.warmup_steps", "optimizer.ema_decay", "precision",
    )
)  # fmt: skip
"""Options that a rule may choose. Where a run has another one than the default, a person gave it."""


class Choices(NamedTuple):
    """Holds what the rules chose.

    Attributes:
        settings: the chosen fields of `Config`, with sections as dicts; what was given is not among them.
        lines: one for each choice, with its reason.
    """

    settings: dict[str, Any]
    lines: list[ChoiceLine]


def choose_settings(facts: Facts, given: Mapping[str, Any] | None = None) -> Choices:
    """Chooses the settings of a run; a pure function.

    Args:
        facts: of the data, the machine and the weights.
        given: option -> value (`{"input.short_side": 320}`) that a person gave. These stay, and the rules reckon with them.

    Returns:
        The settings that were chosen, and a line for each.
    """
    draft = Draft(_base(facts), given or {})
    if draft["input.tile"]:
        facts = replace(facts, data=facts.data.in_tiles(draft["input.tile"]))
    network = _choose_network(draft, facts)
    choose_input(draft, facts)
    _choose_batch(draft, facts)
    _choose_norm(draft, facts)
    _choose_shipped_weights(draft, facts)
    if are_segments(draft):
        choose_segment_sizes(draft, facts)
    else:
        choose_anchors(draft, facts)
        _choose_detections(draft, facts)
        _choose_rois(draft, facts)
        _choose_repeats(draft, facts)
    _choose_steps(draft, facts, network)
    _choose_schedule(draft, facts)
    precision, reason = fast_precision(facts.machine)
    draft.put("precision", {"precision": precision}, reason)
    return Choices(nested(draft.chosen), draft.lines)


def _base(facts: Facts) -> dict[str, Any]:
    """Returns option -> value of what holds where nothing is chosen: the fields' defaults, and what the weights bring."""
    flat: dict[str, Any] = {}
    for name, value in vars(Config()).items():
        fields = vars(value) if hasattr(value, "__dataclass_fields__") else None
        flat |= {name: value} if fields is None else {f"{name}.{field}": held for field, held in fields.items()}
    if facts.weights is not None:
        for section in ("model", "sampling", "input"):
            flat |= {f"{section}.{field}": held for field, held in getattr(facts.weights, section).items()}
    return flat


def _choose_network(draft: Draft, facts: Facts) -> numbers.Network:
    of_random = numbers.LARGE if facts.machine.gpus and draft["init"] != numbers.SHIPPED else numbers.SMALL
    network = of_random if facts.weights is None else numbers.TRAINED
    if are_segments(draft):
        network = network._replace(settings=of_segments(network.settings, facts))
    settings = {name: value for name, value in network.settings.items() if not name.startswith("optimizer.")}
    if is_keras_model(draft["model.backbone"]):
        settings.pop("model.backbone_width", None)
    if settings:
        draft.put("network", settings, network.why)
    elif facts.weights is not None:
        kept = "the whole detector" if facts.weights.is_detector else "the backbone"
        draft.note("network", f"as the weights bring it: {kept}, {draft['model.backbone']}")
    rates = {name: value for name, value in network.settings.items() if name.startswith("optimizer.")}
    draft.put(
        "learning rate",
        rates,
        f"for a batch of {network.settings['optimizer.reference_batch']}; it scales with the batch",
    )
    return network


# ------------------------------------------------------------------------------------------------ batch and norm


def _choose_batch(draft: Draft, facts: Facts) -> None:
    machine, images = facts.machine, facts.data.images
    if not machine.gpus:
        batch = max(1, min(numbers.CPU_BATCH, images))
        draft.put("batch", {"batch_size": batch}, "on a CPU the number of steps counts most")
        return
    pixels = draft["input.short_side"] * draft["input.long_side"]
    memory = machine.gpu_memory or numbers.UNKNOWN_MEMORY
    fitting = int(memory * numbers.GPU_SHARE / (numbers.GPU_BYTES_A_PIXEL * pixels))
    of_gpu = 2 ** int(math.log2(min(max(fitting, 1), numbers.MOST_OF_GPU)))
    while of_gpu > 1 and of_gpu * machine.gpus > images:
        of_gpu //= 2
    named = f"{machine.gpus} GPU{'s' if machine.gpus > 1 else ''} of {memory / 2**30:.0f} GiB"
    draft.put("batch", {"batch_size": of_gpu * machine.gpus}, f"{of_gpu} images for each of {named}")


def _choose_norm(draft: Draft, facts: Facts) -> None:
    if facts.weights is not None:
        return
    at_once = draft["batch_size"] // draft["accumulate"]
    fits = draft["model.backbone_width"] % 32 == 0
    if is_keras_model(draft["model.backbone"]):
        draft.put(
            "norm", {"model.norm": "bn"}, "its batch norms train, if it has any; group norms can't take their place"
        )
    elif facts.machine.gpus and fits and draft["init"] != numbers.SHIPPED:
        draft.put("norm", {"model.norm": "gn"}, "group norm does not depend on the batch")
    elif at_once > 1 or not fits:
        draft.put(
            "norm", {"model.norm": "bn"}, f"batch norm has the statistics of {at_once} images, and is the fastest"
        )
    else:
        draft.put("norm", {"model.norm": "gn"}, "batch norm would have the statistics of a single image")


def _choose_shipped_weights(draft: Draft, facts: Facts) -> None:
    if facts.weights is not None or facts.machine.gpus or draft["proposals"] is not None:
        return
    needed = numbers.SHIPPED_NETWORK
    if are_segments(draft):  # Heads, and what only they need, start fresh.
        needed = {name: value for name, value in needed.items() if name not in OF_DETECTORS}
    if all(draft[name] == value for name, value in needed.items()):
        draft.put(
            "weights",
            {"init": numbers.SHIPPED},
            "of this network, in the package, trained on made pictures; --init None: random weights",
        )


# ------------------------------------------------------------------------------------------------ detections, RoIs


def _choose_detections(draft: Draft, facts: Facts) -> None:
    most = int(facts.data.objects_of_image.max(initial=0))
    wanted = math.ceil(most * numbers.DETECTIONS_OF_FULLEST / 50) * 50
    detections = max(numbers.LEAST_DETECTIONS, wanted)
    if detections > draft["model.max_detections"]:
        draft.put("detections", {"model.max_detections": detections}, f"the fullest image has {most} objects")
    least = numbers.PROPOSALS_OF_DETECTIONS * draft["model.max_detections"]
    names = ("model.pre_nms_train", "model.pre_nms_test", "model.post_nms_train", "model.post_nms_test")
    more = {name: least for name in names if draft[name] < least}
    if more:
        draft.put(
            "proposals",
            more,
            f"{numbers.PROPOSALS_OF_DETECTIONS} for each of {draft['model.max_detections']} detections",
        )


def _choose_rois(draft: Draft, facts: Facts) -> None:
    median = float(np.median(facts.data.objects_of_image))
    wanted = 2 ** math.ceil(math.log2(max(1.0, numbers.ROIS_OF_OBJECTS * median)))
    rois = min(max(draft["sampling.roi_batch"], wanted), numbers.MOST_ROIS)
    if rois > draft["sampling.roi_batch"]:
        draft.put(
            "RoIs in the loss", {"sampling.roi_batch": rois}, f"half of the images have {median:.0f} objects or more"
        )


def _choose_repeats(draft: Draft, facts: Facts) -> None:
    shares = facts.data.class_shares[facts.data.class_shares > 0]
    if not len(shares):
        return
    bound = numbers.RARE * float(np.median(shares))
    rare = int((shares < bound).sum())
    if rare:
        classes = "1 class is" if rare == 1 else f"{rare} classes are"
        draft.put(
            "rare classes",
            {"input.repeat_threshold": float(f"{bound:.3g}")},
            f"{classes} in less than {bound:.2%} of the images, a quarter of the median class's share",
        )


# ------------------------------------------------------------------------------------------------ schedule


def _choose_steps(draft: Draft, facts: Facts, network: numbers.Network) -> None:
    if "minutes" in draft.given and draft.given["minutes"] is not None:
        draft.note("steps", "--minutes decides how many there are")
        return
    exact = network.epochs * facts.data.images / draft["batch_size"]
    least, most = network.steps
    steps = round(min(max(exact, least), most), -2)
    epochs = steps * draft["batch_size"] / facts.data.images
    draft.put(
        "steps",
        {"steps": int(steps)},
        f"{epochs:.0f} times over {facts.data.images:,} images; between {least:,} and {most:,}",
    )


def _choose_schedule(draft: Draft, facts: Facts) -> None:
    timed = "minutes" in draft.given and draft.given["minutes"] is not None
    steps = numbers.MINUTES_STEPS if timed else draft["steps"]
    between = min(max(steps // numbers.EVALUATIONS, numbers.LEAST_BETWEEN), numbers.MOST_BETWEEN)
    kept = min(max(steps // numbers.CHECKPOINTS, numbers.LEAST_BETWEEN), numbers.MOST_BETWEEN_CHECKPOINTS)
    if not timed:
        draft.put(
            "evaluations", {"eval_every": between, "checkpoint_every": kept}, f"some {numbers.EVALUATIONS} in the run"
        )
    warmup = round(min(max(numbers.WARMUP * steps, numbers.LEAST_WARMUP), numbers.MOST_WARMUP))
    settings: dict[str, Any] = {"optimizer.warmup_steps": warmup}
    if facts.weights is None:
        span = 1.0 - 1.0 / max(numbers.EMA_SPAN * steps, 1.0)
        settings["optimizer.ema_decay"] = round(min(max(span, numbers.LEAST_EMA), numbers.MOST_EMA), 4)
    draft.put("schedule", settings, f"a share of {steps:,} steps")
