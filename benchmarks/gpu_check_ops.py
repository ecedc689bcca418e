"""Measures single parts on a GPU for gpu_check.py: layouts, RoIAlign, TF32, NMS, sorts."""

import re
import time
from statistics import median

import numpy as np


def milliseconds(call, runs=7):
    """Returns the median time of a call whose result is waited for, after two calls that warm up."""
    times = []
    for turn in range(runs + 2):
        start = time.perf_counter()
        wait(call())
        if turn >= 2:
            times.append(1000 * (time.perf_counter() - start))
    return median(times)


def wait(values):
    """Waits for the device: it works behind the host."""
    import tensorflow as tf

    return [np.array(value) for value in tf.nest.flatten(values)]


def boxes_in(rng, count, side, images=1):
    """Returns (images, count, 4) float32 boxes of all sizes in a square."""
    start = rng.uniform(0, 0.8 * side, (images, count, 2))
    sizes = side * 0.4 * rng.uniform(0.05, 1.0, (images, count, 2)) ** 2
    return np.concatenate([start, start + sizes], axis=-1).astype("float32")


def layouts(quick):
    """Compares forms of a 1x1 convolution beside a 3x3 one, and counts the transposes that XLA inserts."""
    import tensorflow as tf

    side, channels = (32, 32) if quick else (200, 256)
    x = tf.random.normal((1 if quick else 4, side, side, channels))
    small, large = (tf.random.normal((k, k, channels, channels)) * 0.05 for k in (1, 3))

    def matrix(x):
        return tf.reshape(tf.reshape(x, (-1, channels)) @ small[0, 0], tf.shape(x))

    def between(pointwise):
        return lambda x: tf.nn.relu(pointwise(tf.nn.relu(tf.nn.conv2d(tf.nn.relu(pointwise(x)), large, 1, "SAME"))))

    forms = {"matrix product (kfpn)": matrix, "conv2d": lambda x: tf.nn.conv2d(x, small, 1, "SAME")}
    rows = []
    for name, form in forms.items():
        compiled = tf.function(between(form), jit_compile=True, autograph=False)
        rows.append(
            (
                f"1x1, 3x3, 1x1 under XLA, 1x1 as {name}",
                milliseconds(lambda f=compiled: f(x)),
                "ms",
                "the faster form should stand in layers.py on a GPU",
            )
        )
        text = compiled.experimental_get_compiler_ir(x)(stage="optimized_hlo")
        count = len(re.findall(r"= \S+ (?:transpose|copy)\(", text)) + text.count("nchw")
        rows.append(
            (
                f"transposes and copies in that program, {name}",
                count,
                "",
                "0: no layout is changed; each one reads and writes a whole map",
            )
        )
    return rows


def roi_align(quick):
    """Times RoIAlign with two samples and with as many as each RoI needs, and its gradient; repeats the gradient."""
    import tensorflow as tf

    from kfpn.modeling.pooling import RoIAlign

    rng, side, rois = np.random.default_rng(0), *((128, 16) if quick else (1024, 1000))
    channels = 8 if quick else 256
    levels = {f"P{i}": tf.random.normal((1, side >> i, side >> i, channels)) for i in range(2, 6)}
    boxes, sizes = tf.constant(boxes_in(rng, rois, side)), tf.constant([[side, side]])
    rows = []
    for ratio in (2, 0):
        align = RoIAlign(7, ratio)

        def backward(align=align):
            with tf.GradientTape() as tape:
                tape.watch(levels)
                total = tf.reduce_sum(align(levels, boxes, sizes) ** 2)
            return tape.gradient(total, levels)

        forward = tf.function(lambda align=align: align(levels, boxes, sizes), jit_compile=True, autograph=False)
        compiled = tf.function(backward, jit_compile=True, autograph=False)
        reading = "ratio 0 is detectron2's; if it takes more than twice the time of ratio 2, fine-tune with ratio 2"
        rows.append((f"RoIAlign of {rois} RoIs, sampling ratio {ratio}", milliseconds(forward, 3), "ms", reading))
        rows.append((f"the same with its gradient, ratio {ratio}", milliseconds(compiled, 3), "ms", reading))
        first = wait(compiled())
        apart = max(float(np.abs(a - b).max()) for _ in range(3) for a, b in zip(first, wait(compiled()), strict=True))
        rows.append(
            (
                f"largest difference between 4 gradients of the same input, ratio {ratio}",
                apart,
                "",
                "0: the scatter is deterministic here; else runs of one seed differ on a GPU",
            )
        )
    return rows


def tf32(quick):
    """Compares a network's outputs with and without TF32."""
    import keras
    import tensorflow as tf

    from kfpn.config.model import ModelConfig
    from kfpn.modeling.submodels import build_submodels

    keras.utils.set_random_seed(0)
    config = ModelConfig(
        **({"backbone": "resnet18", "backbone_width": 8, "pyramid_channels": 16, "head_width": 32} if quick else {})
    )
    submodels = build_submodels(config)
    images = tf.random.uniform((1, 64, 64, 3) if quick else (1, 800, 1088, 3), 0.0, 255.0)
    run = tf.function(lambda: submodels.rpn(submodels.features(images)), autograph=False)
    outputs, rows = [], []
    for enabled in (True, False):
        tf.config.experimental.enable_tensor_float_32_execution(enabled)
        rows.append(
            (
                f"features and RPN, TF32 {'on' if enabled else 'off'}",
                milliseconds(run, 3),
                "ms",
                "what full float32 costs",
            )
        )
        outputs.append([1 / (1 + np.exp(-x)) for x in wait(run()["logits"])])
    apart = max(float(np.abs(a - b).max()) for a, b in zip(*outputs, strict=True))
    rows.append(
        (
            "largest difference of a score by TF32",
            apart,
            "",
            "--verify allows 0.001 and computes without TF32; 0: this device has none",
        )
    )
    return rows


def nms(quick):
    """Times the forms of NMS, and counts the rounds, each of which asks the host whether to go on."""
    import tensorflow as tf

    from kfpn.ops import nms as forms

    rng, count, classes = np.random.default_rng(0), *((50, 3) if quick else (1000, 80))
    boxes, valid = tf.constant(boxes_in(rng, count, 800)), tf.ones((1, count), tf.bool)
    rows = []
    for name, jit in (("rounds", True), ("rounds", False), ("kernel", False)):
        call = tf.function(lambda f=forms.LEVEL_NMS[name]: f(boxes, valid, 0.7), jit_compile=jit, autograph=False)
        kind = f"{name}{' under XLA' if jit else ''}"
        rows.append(
            (
                f"NMS of {count} boxes, {kind}",
                milliseconds(call),
                "ms",
                "training takes rounds under XLA, exports take kernel",
            )
        )
    rows.append(
        (
            "rounds until nothing changes",
            count_rounds(boxes, valid),
            "",
            "times one trip to the host; (ms with rounds) / (this) is a trip's cost at most",
        )
    )
    scores = rng.uniform(0, 1, (1, classes, count)).astype("float32") ** 8
    per_class = tf.constant(np.repeat(boxes_in(rng, count, 800)[:, None], classes, axis=1)), tf.constant(scores)
    for name, select in forms.FINAL_NMS.items():
        call = tf.function(lambda f=select: f(*per_class, 0.5, 0.05, 100), autograph=False)
        rows.append(
            (
                f"detections of {count} boxes in {classes} classes, {name}",
                milliseconds(call),
                "ms",
                "gpu_kernel is export --nms-on gpu, kernel is the default; take the faster one",
            )
        )
    return rows


def count_rounds(boxes, valid):
    """Returns how many rounds `suppress` takes."""
    from kfpn.ops import boxes as box_ops

    overlaps = np.triu(np.array(box_ops.iou(boxes, boxes))[0] > 0.7, 1)
    keep, rounds = np.array(valid)[0], 0
    while True:
        new, rounds = ~(overlaps & keep[:, None]).any(axis=0), rounds + 1
        if (new == keep).all():
            return rounds
        keep = new


def sorts(quick):
    """Compares one top_k over all anchors with one a level."""
    import tensorflow as tf

    sides = (16, 8, 4, 2, 1) if quick else (200, 100, 50, 25, 13)
    levels = [tf.random.normal((2, 3 * side * side * 4 // 3)) for side in sides]
    together, rows = tf.concat(levels, axis=1), []

    def by_level():
        best = [tf.math.top_k(level, min(1000, level.shape[1]))[0] for level in levels]
        joined = tf.concat(best, axis=1)
        return tf.math.top_k(joined, min(1000, joined.shape[1]))

    def over_all():
        return tf.math.top_k(together, min(1000, together.shape[1]))

    for name, call in (("top 1000 of all anchors", over_all), ("top 1000 of each level, then of those", by_level)):
        for jit in (True, False):
            timed = milliseconds(tf.function(call, jit_compile=jit, autograph=False))
            rows.append(
                (
                    f"{name} ({together.shape[1]}){' under XLA' if jit else ''}",
                    timed,
                    "ms",
                    "kfpn sorts by level; XLA sorts whole rows, so more than 1 ms is worth a change",
                )
            )
    full = tf.function(lambda: tf.sort(together, direction="DESCENDING"), jit_compile=True, autograph=False)
    rows.append(
        (
            f"full sort of {together.shape[1]} under XLA",
            milliseconds(full),
            "ms",
            "what top_k costs where XLA sorts everything",
        )
    )
    return rows


OP_QUESTIONS = {"layouts": layouts, "roi_align": roi_align, "tf32": tf32, "nms": nms, "sorts": sorts}
