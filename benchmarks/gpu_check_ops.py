"""Measures single parts on a GPU for gpu_check.py: layouts, RoIAlign, TF32, NMS, sorts."""

import re
import time
from statistics import median

import numpy as np

TINY = {"backbone": "resnet18", "backbone_width": 8, "pyramid_channels": 16, "head_width": 32}
"""Settings of the model where --quick is asked for."""


def wait(values):
    """Waits for the device, which works behind the host, and returns all tensors as arrays."""
    import tensorflow as tf

    return [np.array(value) for value in tf.nest.flatten(values)]


def milliseconds(call, runs=7):
    """Returns the median time of a call whose result is waited for, after two calls that warm up."""
    times = []
    for turn in range(runs + 2):
        start = time.perf_counter()
        wait(call())
        if turn >= 2:
            times.append(1000 * (time.perf_counter() - start))
    return median(times)


def time_row(what, call, reading, compiled=False, runs=7):
    """Returns the row of the time of a call, which runs as a graph, under XLA if it is compiled."""
    import tensorflow as tf

    graph = tf.function(call, jit_compile=compiled, autograph=False)
    return f"{what}{' under XLA' if compiled else ''}", milliseconds(graph, runs), "ms", reading


def largest_difference(ours, theirs):
    """Returns the largest difference between arrays of two lists."""
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


def boxes_in(rng, count, side):
    """Returns (1, count, 4) float32 boxes of all sizes in a square of `side` pixels, yxyx."""
    start = rng.uniform(0, 0.8 * side, (1, count, 2))
    sizes = side * 0.4 * rng.uniform(0.05, 1.0, (1, count, 2)) ** 2
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
        faster = "the faster form should stand in layers.py on a GPU"
        rows.append((f"1x1, 3x3, 1x1 under XLA, 1x1 as {name}", milliseconds(lambda f=compiled: f(x)), "ms", faster))
        text = compiled.experimental_get_compiler_ir(x)(stage="optimized_hlo")
        count = len(re.findall(r"= \S+ (?:transpose|copy)\(", text)) + text.count("nchw")
        costs = "0: no layout is changed; each one reads and writes a whole map"
        rows.append((f"transposes and copies in that program, {name}", count, "", costs))
    return rows


def roi_align(quick):
    """Times RoIAlign with two samples and with as many as each RoI needs, and its gradient; repeats the gradient."""
    import tensorflow as tf

    from kfpn.modeling.pooling import RoIAlign

    rng, side, rois = np.random.default_rng(0), *((128, 16) if quick else (1024, 1000))
    channels = 8 if quick else 256
    levels = {f"P{i}": tf.random.normal((1, side >> i, side >> i, channels)) for i in range(2, 6)}
    boxes, sizes = tf.constant(boxes_in(rng, rois, side)), tf.constant([[side, side]])
    slower = "ratio 0 is detectron2's; if it takes more than twice the time of ratio 2, fine-tune with ratio 2"
    same = "0: the gradient is the same each time; else runs of one seed differ on this device"
    rows = []
    for ratio in (2, 0):
        align = RoIAlign(7, ratio)

        def forward(align=align):
            return align(levels, boxes, sizes)

        def backward(align=align):
            with tf.GradientTape() as tape:
                tape.watch(levels)
                total = tf.reduce_sum(align(levels, boxes, sizes) ** 2)
            return tape.gradient(total, levels)

        compiled = tf.function(backward, jit_compile=True, autograph=False)
        rows.append(time_row(f"RoIAlign of {rois} RoIs, sampling ratio {ratio}", forward, slower, True, 3))
        rows.append((f"the same with its gradient, ratio {ratio}", milliseconds(compiled, 3), "ms", slower))
        first = wait(compiled())
        apart = max(largest_difference(first, wait(compiled())) for _ in range(3))
        rows.append((f"largest difference between 4 gradients of the same input, ratio {ratio}", apart, "", same))
    return rows


def tf32(quick):
    """Compares a network's outputs with and without TF32."""
    import keras
    import tensorflow as tf

    from kfpn.config.model import ModelConfig
    from kfpn.modeling.submodels import build_submodels

    keras.utils.set_random_seed(0)
    submodels = build_submodels(ModelConfig(**TINY) if quick else ModelConfig())
    images = tf.random.uniform((1, 64, 64, 3) if quick else (1, 800, 1088, 3), 0.0, 255.0)
    run = tf.function(lambda: submodels.rpn(submodels.features(images)), autograph=False)
    outputs, rows = [], []
    for state in ("on", "off"):
        tf.config.experimental.enable_tensor_float_32_execution(state == "on")
        rows.append((f"features and RPN, TF32 {state}", milliseconds(run, 3), "ms", "what full float32 costs"))
        outputs.append([1 / (1 + np.exp(-x)) for x in wait(run()["logits"])])
    limit = "--verify allows 0.001 and computes without TF32; 0: this device has no TF32"
    return [*rows, ("largest difference of a score by TF32", largest_difference(*outputs), "", limit)]


def nms(quick):
    """Times the forms of NMS, and counts the rounds, each of which asks the host whether to go on."""
    import tensorflow as tf
    from formulations import clustered, roi_outputs

    from kfpn.ops import nms as forms

    rng, count, classes = np.random.default_rng(0), *((50, 3) if quick else (1000, 80))
    boxes, valid = tf.constant(clustered(rng, 1, count)), tf.ones((1, count), tf.bool)
    taken = "training takes rounds under XLA, exports take kernel"
    rows = [
        time_row(f"NMS of {count} boxes, {name}", lambda f=forms.LEVEL_NMS[name]: f(boxes, valid, 0.7), taken, jit)
        for name, jit in (("rounds", True), ("rounds", False), ("kernel", False))
    ]
    trips = "each round asks the host whether to go on; (ms of rounds) / (this number) is the most that asking takes"
    rows.append(("rounds until nothing changes", count_rounds(boxes, valid), "", trips))
    class_boxes, scores = (tf.constant(values.swapaxes(1, 2)) for values in roi_outputs(rng, False, count, classes))
    faster = "gpu_kernel is export --nms-on gpu, kernel is the default; take the faster one"
    for name, select in forms.FINAL_NMS.items():
        what = f"detections of {count} boxes in {classes} classes, {name}"
        rows.append(time_row(what, lambda f=select: f(class_boxes, scores, 0.5, 0.05, 100), faster))
    return rows


def count_rounds(boxes, valid):
    """Returns how many rounds `kfpn.ops.nms.suppress` takes with an IoU of 0.7, the last of which changes nothing.

    Args:
        boxes: (1, N, 4) float32 yxyx, best first.
        valid: (1, N) bool, False for rows that hold no box.
    """
    from kfpn.ops import boxes as box_ops

    overlaps = np.triu(np.array(box_ops.iou(boxes, boxes))[0] > 0.7, 1)
    valid = keep = np.array(valid)[0]
    rounds = 0
    while True:
        new, rounds = valid & ~(overlaps & keep[:, None]).any(axis=0), rounds + 1
        if (new == keep).all():
            return rounds
        keep = new


def sorts(quick):
    """Compares one top_k over all anchors with one a level."""
    import tensorflow as tf

    sides = (16, 8, 4, 2, 1) if quick else (200, 100, 50, 25, 13)
    levels = [tf.random.normal((2, 4 * side * side)) for side in sides]
    together = tf.concat(levels, axis=1)
    anchors = together.shape[1]

    def best(scores):
        return tf.math.top_k(scores, min(1000, scores.shape[1]))

    forms = {
        f"top 1000 of all anchors ({anchors})": lambda: best(together),
        f"top 1000 of each level, then of those ({anchors})": lambda: best(
            tf.concat([best(level)[0] for level in levels], axis=1)
        ),
    }
    whole = "kfpn sorts by level; XLA sorts whole rows, so more than 1 ms is worth a change"
    rows = [time_row(what, call, whole, jit) for what, call in forms.items() for jit in (True, False)]
    all_of_them = "what top_k costs where XLA sorts everything"
    rows.append(
        time_row(f"full sort of {anchors}", lambda: tf.sort(together, direction="DESCENDING"), all_of_them, True)
    )
    return rows


OP_QUESTIONS = {"layouts": layouts, "roi_align": roi_align, "tf32": tf32, "nms": nms, "sorts": sorts}
