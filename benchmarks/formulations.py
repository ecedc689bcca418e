"""Measures ways to write NMS, the final selection and RoIAlign, in TensorFlow, XLA and ONNX Runtime.

    python benchmarks/formulations.py                # everything, minutes on two cores
    python benchmarks/formulations.py --what align   # one of nms, select, align, gradient

Every form is first checked against the first one of its table, on the same random input; then the forms take turns,
and the table gives the median in milliseconds (and the factor to the first row of the column). A form that a
backend can't compile or convert says why below the table. Needs `pip install onnxruntime tf2onnx` for the ONNX column.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from keras import ops

from kfpn.ops import boxes as box_ops
from kfpn.ops.nms import select_per_class, suppress
from kfpn.ops.roi_align import roi_align, roi_levels

IMAGE = 512
BACKENDS = ("TF", "XLA", "ONNX")


def compiled(function, inputs, backend):
    """Returns a call without arguments that gives the function's outputs as a list of arrays."""
    if backend == "ONNX":
        import onnxruntime
        import tf2onnx

        specs = [tf.TensorSpec(x.shape, x.dtype, name=f"x{i}") for i, x in enumerate(inputs)]
        graph = tf.function(lambda *x: list(tf.nest.flatten(function(*x))), input_signature=specs, autograph=False)
        model, _ = tf2onnx.convert.from_function(graph, specs, opset=18)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {f"x{i}": x for i, x in enumerate(inputs)})
    graph = tf.function(lambda *x: list(tf.nest.flatten(function(*x))), autograph=False, jit_compile=backend == "XLA")
    tensors = [tf.constant(x) for x in inputs]
    return lambda: [x.numpy() for x in graph(*tensors)]


def compare(title, forms, inputs, difference, runs, backends=BACKENDS):
    """Prints the table of forms, {name: function of the inputs}; the first is the reference."""
    calls, seconds, notes, found = {}, {}, [], {}
    reference = None
    for name, function in forms.items():
        for backend in backends:
            try:
                call = compiled(function, inputs, backend)
                start = time.perf_counter()
                result = call()
                first = time.perf_counter() - start
            except Exception as error:
                # Whatever a backend's compiler raises is the finding here.
                notes.append(f"{name}, {backend}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
                continue
            reference = result if reference is None else reference
            found[name, backend] = difference(reference, result)
            calls[name, backend], seconds[name, backend] = call, []
            if backend == "XLA":
                notes.append(f"{name}: XLA compiled in {first:.1f} s")
    for _ in range(runs):
        for key, call in calls.items():
            if sum(seconds[key]) > 2.0:  # slow forms take fewer turns
                continue
            start = time.perf_counter()
            call()
            seconds[key].append(time.perf_counter() - start)
    show(title, forms, backends, {key: float(np.median(times)) * 1e3 for key, times in seconds.items()}, found)
    print("\n" + "\n".join(f"- {note}" for note in notes), flush=True)


def show(title, forms, backends, medians, found):
    print(
        f"\n### {title}\n\n| form | {' | '.join(f'{b}, ms' for b in backends)} | difference |\n|---|{'---|' * len(backends)}---|"
    )
    first = next(iter(forms))
    for name in forms:
        cells = []
        for backend in backends:
            key = (name, backend)
            base = medians.get((first, backend))
            factor = f" ({medians[key] / base:.2f})" if key in medians and base else ""
            cells.append(f"{medians[key]:.1f}{factor}" if key in medians else "no")
        differences = dict.fromkeys(found[name, b] for b in backends if (name, b) in found)
        print(f"| {name} | {' | '.join(cells)} | {'; '.join(differences) or 'none measured'} |")


def clustered(rng, batch, count, objects=100, noise=0.1):
    """Returns (batch, count, 4) float32 yxyx: jittered copies of random objects, 32 to 256 pixels large."""
    centre = rng.uniform(0, IMAGE, (batch, objects, 2))
    size = np.exp(rng.uniform(np.log(32), np.log(256), (batch, objects, 2)))
    pick = rng.integers(0, objects, (batch, count))[..., None]
    centre, size = np.take_along_axis(centre, pick, 1), np.take_along_axis(size, pick, 1)
    centre = centre + rng.normal(size=centre.shape) * size * noise
    size = size * np.exp(rng.normal(size=size.shape) * noise)
    return np.clip(np.concatenate([centre - size / 2, centre + size / 2], -1), 0, IMAGE).astype("float32")


# NMS within a level: boxes (B, N, 4), best first -> kept (B, N) bool.


def nms_fixed_point(boxes, threshold=0.7):
    return suppress(boxes, ops.ones(boxes.shape[:2], "bool"), threshold)


def nms_tiles(boxes, tile, threshold=0.7):
    """The fixed point within a tile, then the tile's kept boxes strike the rest: half the overlaps, none of them kept."""
    alive, kept = ops.ones(boxes.shape[:2], "bool"), []
    while boxes.shape[1]:
        own, boxes = boxes[:, :tile], boxes[:, tile:]
        keep = suppress(own, alive[:, :tile], threshold)
        kept.append(keep)
        beaten = ops.any(ops.logical_and(box_ops.iou(own, boxes) > threshold, keep[:, :, None]), axis=1)
        alive = ops.logical_and(alive[:, tile:], ops.logical_not(beaten))
    return ops.concatenate(kept, axis=1)


def nms_greedy(boxes, threshold=0.7):
    """The textbook: box after box, N sequential steps."""
    batch, count = boxes.shape[:2]
    rank = ops.arange(count)

    def step(i, alive):
        one, own = ops.slice(boxes, (0, i, 0), (batch, 1, 4)), ops.slice(alive, (0, i), (batch, 1))
        beaten = ops.logical_and(ops.logical_and(box_ops.iou(one, boxes)[:, 0] > threshold, own), rank > i)
        return i + 1, ops.logical_and(alive, ops.logical_not(beaten))

    start = (ops.convert_to_tensor(0, "int32"), ops.ones((batch, count), "bool"))
    return ops.while_loop(lambda i, _alive: i < count, step, start)[1]


def nms_kernel(boxes, threshold=0.7):
    count, masks = boxes.shape[1], []
    for image in tf.unstack(boxes):
        index = tf.image.non_max_suppression(image, tf.linspace(1.0, 0.1, count), count, threshold)
        masks.append(tf.scatter_nd(index[:, None], tf.ones_like(index), [count]) > 0)
    return tf.stack(masks)


def nms_padded(boxes, threshold=0.7):
    batch, count = boxes.shape[:2]
    scores = tf.broadcast_to(tf.linspace(1.0, 0.1, count), (batch, count))
    index, number = tf.image.non_max_suppression_padded(
        boxes, scores, count, threshold, pad_to_max_output_size=True, sorted_input=True, canonicalized_coordinates=True
    )
    rows = tf.stack([tf.broadcast_to(tf.range(batch)[:, None], index.shape), index], axis=-1)
    return tf.scatter_nd(rows, tf.cast(tf.range(count) < number[:, None], tf.int32), (batch, count)) > 0


def measure_nms(rng, runs):
    forms = {
        "fixed point (`suppress`)": nms_fixed_point,
        "fixed point in tiles of 500": lambda boxes: nms_tiles(boxes, 500),
        "greedy loop": nms_greedy,
        "`tf.image.non_max_suppression`, image by image": nms_kernel,
        "`tf.image.non_max_suppression_padded`, batched": nms_padded,
    }

    def levels(form):
        return lambda *boxes: tf.stack([form(level) for level in boxes])

    def difference(reference, result):
        return f"{np.sum(reference[0] != result[0])} of {reference[0].sum()} kept"

    for batch, count in ((1, 1000), (2, 2000)):
        title = f"NMS: 5 levels of {count} boxes, batch {batch}, threshold .7"
        boxes = [clustered(rng, batch, count) for _ in range(5)]
        backends = BACKENDS if batch == 1 else BACKENDS[:2]  # training is not exported
        compare(title, {name: levels(form) for name, form in forms.items()}, boxes, difference, runs, backends)


# Final selection: boxes (B, R, K, 4), scores (B, R, K) -> boxes, scores, labels, number.


def select_kfpn(boxes, scores, cut=1000):
    boxes, scores = ops.transpose(boxes, (0, 2, 1, 3)), ops.transpose(scores, (0, 2, 1))
    return select_per_class(boxes, scores, 0.5, 0.05, 100, cut)


def select_loop(boxes, scores):
    """The loop alone: a cut of one pair is never enough here."""
    return select_kfpn(boxes, scores, cut=1)


def select_combined(boxes, scores):
    found = tf.image.combined_non_max_suppression(boxes, scores, 100, 100, 0.5, 0.05, clip_boxes=False)
    valid = tf.range(100)[None] < found.valid_detections[:, None]
    labels = tf.where(valid, tf.cast(found.nmsed_classes, tf.int32), -1)
    return found.nmsed_boxes, found.nmsed_scores, labels, found.valid_detections


def select_cut(boxes, scores, cut=1000):
    """The best pairs of all classes, NMS once with the classes moved apart: cuts candidates off, so not exact."""
    classes, batch = scores.shape[2], scores.shape[0]
    top, index = ops.top_k(ops.reshape(scores, (batch, -1)), cut)
    labels = ops.cast(index % classes, "int32")
    boxes = ops.take_along_axis(ops.reshape(boxes, (batch, -1, 4)), index[..., None], axis=1)
    apart = boxes + ops.cast(labels, "float32")[..., None] * (IMAGE + 1.0)
    keep = suppress(apart, top > 0.05, 0.5)
    score, place = ops.top_k(ops.where(keep, top, 0.0), 100)
    found = score > 0.0
    boxes = ops.where(found[..., None], ops.take_along_axis(boxes, place[..., None], axis=1), 0.0)
    labels = ops.where(found, ops.take_along_axis(labels, place, axis=1), -1)
    return boxes, score, labels, ops.sum(ops.cast(found, "int32"), axis=-1)


def roi_outputs(rng, crowded, rois=1000, classes=80):
    """Returns class-specific boxes (1, R, K, 4) and softmax scores (1, R, K).

    Usual: most RoIs are background, the rest favour one or two classes. Crowded: every RoI has ten classes above .05,
    and the 700 best of them sit on five objects and agree on the ten.
    """
    logits = rng.normal(size=(1, rois, classes + 1))
    if crowded:
        near = np.concatenate([clustered(rng, 1, 700, 5, 0.03), clustered(rng, 1, 300)], axis=1)
        favourites = np.argsort(rng.random((1, rois, classes)), axis=-1)[..., :10]
        favourites[:, :700] = np.arange(10)
        logits[:, 700:, -1] = 8.0  # .07 a pair instead of .1
        strength = np.where(np.arange(rois) < 700, 8.0, 6.5)[None, :, None] + rng.uniform(0, 0.3, (1, rois, 10))
        np.put_along_axis(logits, favourites, strength, axis=-1)
    else:
        near = clustered(rng, 1, rois)
        logits[..., -1] += np.where(rng.random((1, rois)) < 0.4, 4.0, 10.0)
        favourites = rng.integers(0, classes, (1, rois, 2))
        np.put_along_axis(logits, favourites, rng.uniform(3, 8, (1, rois, 2)), axis=-1)
    scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    boxes = near[:, :, None] + rng.normal(size=(1, rois, classes, 4)).clip(-2, 2)
    return boxes.clip(0, IMAGE).astype("float32"), scores[..., :-1].astype("float32")


def measure_select(rng, runs):
    forms = {
        "best pair after best pair": select_loop,
        "`tf.image.combined_non_max_suppression`": select_combined,
        "best 1000 pairs, classes apart, `suppress`": select_cut,
        "the cut, and the loop where it isn't exact (`select_per_class`)": select_kfpn,
    }

    def difference(reference, result):
        def rows(found):
            return {(label, *box.tolist()) for label, box in zip(found[2][0], found[0][0], strict=True) if label >= 0}

        return f"{len(rows(reference) - rows(result))} of {len(rows(reference))} detections missing"

    for crowded in (False, True):
        boxes, scores = roi_outputs(rng, crowded)
        case = "crowded" if crowded else "usual"
        title = f"Selection: 1000 RoIs, 80 classes, {case}: {np.sum(scores > 0.05)} pairs above .05"
        compare(title, forms, [boxes, scores], difference, runs)


# RoIAlign: four levels (1, H, W, C), rois (1, R, 4) -> (1, R, 7, 7, C).


def align_gathers(*inputs):
    *features, rois = inputs
    cells = [tf.constant([[x.shape[1], x.shape[2]]], tf.int32) for x in features]
    return roi_align(features, rois, cells)


def align_crop(*inputs):
    """crop_and_resize of 14 x 14 samples a level, then the mean of each 2 x 2: samples outside the level are 0."""
    *features, rois = inputs
    level, parts, places = roi_levels(rois)[0] - 2, [], []
    for number, feature in enumerate(features):
        place = tf.where(level == number)[:, 0]
        box = tf.gather(rois[0], place) / 2.0 ** (number + 2) - 0.5
        inset = (box[:, 2:] - box[:, :2]) / 28.0
        box = tf.concat([box[:, :2] + inset, box[:, 2:] - inset], axis=1) / (feature.shape[1] - 1.0)
        crops = tf.image.crop_and_resize(feature, box, tf.zeros_like(place, tf.int32), (14, 14))
        parts.append(tf.nn.avg_pool2d(crops, 2, 2, "VALID"))
        places.append(place)
    order = tf.argsort(tf.concat(places, axis=0))
    return tf.ensure_shape(tf.gather(tf.concat(parts, axis=0), order)[None], (1, rois.shape[1], 7, 7, None))


def align_at_once(*inputs):
    """One gather of all sixteen taps, (R, 7, 7, 16, C), and one weighted sum."""
    *features, rois = inputs
    table = tf.concat([tf.reshape(x, (-1, x.shape[-1])) for x in features], axis=0)
    sides = [x.shape[1] for x in features]
    level = roi_levels(rois)[0] - 2
    side = tf.gather(tf.constant(sides), level)[:, None, None, None]
    box = rois[0] / tf.gather(tf.constant([4.0, 8.0, 16.0, 32.0]), level)[:, None] - 0.5
    steps = (tf.reshape(tf.range(14, dtype=tf.float32), (7, 2)) + 0.5) / 14.0
    last, taps, weights = tf.cast(side, tf.float32) - 1.0, [], []
    for axis in (0, 1):
        start, end = box[:, axis, None, None], box[:, axis + 2, None, None]
        at = start + steps * (end - start)
        inside = tf.cast(tf.logical_and(at >= -1.0, at <= last[..., 0] + 1.0), tf.float32)
        at = tf.clip_by_value(at, 0.0, last[..., 0])
        low = tf.floor(at)
        pair = tf.stack([low, tf.minimum(low + 1.0, last[..., 0])], axis=-1)
        weight = tf.stack([1.0 - at + low, at - low], axis=-1) * inside[..., None] / 2.0
        taps.append(tf.reshape(tf.cast(pair, tf.int32), (-1, 7, 4)))
        weights.append(tf.reshape(weight, (-1, 7, 4)))
    starts = tf.gather(tf.constant(np.cumsum([0, *np.square(sides[:-1])]), tf.int32), level)[:, None, None, None]
    rows = (starts + taps[0][:, :, None] * side)[..., None] + taps[1][:, None, :, None]
    weight = weights[0][:, :, None, :, None] * weights[1][:, None, :, None]
    shape = (rois.shape[1], 7, 7, 16)
    taps = tf.gather(table, tf.reshape(rows, shape))
    return tf.linalg.matvec(taps, tf.reshape(weight, shape), transpose_a=True)[None]


ALIGN_FORMS = {
    "sixteen gathers, summed (`roi_align`)": align_gathers,
    "`crop_and_resize` a level": align_crop,
    "one gather of all taps": align_at_once,
}


def align_inputs(rng, count):
    features = [rng.normal(size=(1, IMAGE // s, IMAGE // s, 256)).astype("float32") for s in (4, 8, 16, 32)]
    return features, clustered(rng, 1, count)


def measure_align(rng, runs):
    features, rois = align_inputs(rng, 1000)
    border = np.any((rois[0] < 32) | (rois[0] > IMAGE - 32), axis=-1)

    def difference(reference, result):
        off = np.abs(reference[0] - result[0])[0].max(axis=(1, 2, 3))
        return f"inside {off[~border].max():.0e}, within 32 px of the border {off[border].max():.0e}"

    compare("RoIAlign: 1000 RoIs, 256 channels, 512 x 512", ALIGN_FORMS, [*features, rois], difference, runs)


def measure_gradient(rng, runs):
    features, rois = align_inputs(rng, 512)
    rois = rois.clip(64, IMAGE - 64)  # where all three forms agree on the output
    upstream = rng.normal(size=(1, 512, 7, 7, 256)).astype("float32")

    def gradient(form):
        def backward(*inputs):
            *levels, boxes, weights = inputs
            with tf.GradientTape() as tape:
                tape.watch(levels)
                total = tf.reduce_sum(form(*levels, boxes) * weights)
            return tape.gradient(total, levels)

        return backward

    def difference(reference, result):
        return f"at most {max(np.abs(a - b).max() for a, b in zip(reference, result, strict=True)):.0e}"

    forms = {name: gradient(form) for name, form in ALIGN_FORMS.items()}
    title = "RoIAlign, forward and gradient in the features: 512 RoIs"
    compare(title, forms, [*features, rois, upstream], difference, runs, BACKENDS[:2])


MEASURES = {"nms": measure_nms, "select": measure_select, "align": measure_align, "gradient": measure_gradient}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=[*MEASURES, "all"], default="all")
    parser.add_argument("--runs", type=int, default=5, help="turns each form takes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for what in MEASURES if options.what == "all" else (options.what,):
        MEASURES[what](np.random.default_rng(options.seed), options.runs)
    print(f"\nTensorFlow {tf.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
