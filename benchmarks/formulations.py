"""Times several ways to write NMS, the final selection and RoIAlign, in TensorFlow, XLA and ONNX Runtime.

    python benchmarks/formulations.py                # all four, some minutes on two cores
    python benchmarks/formulations.py --what align   # one of nms, select, align, gradient

The forms stand in `formulations_forms.py`. Every form is first compared with the first one of its table, on the same random
input. Then the forms take turns. The table gives the median in milliseconds, and the factor to the first row of the column.
If a backend can't compile or convert a form, the reason stands below the table. The ONNX column needs
`pip install onnxruntime tf2onnx`.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from formulations_forms import (
    ALIGN_FORMS,
    IMAGE,
    nms_fixed_point,
    nms_greedy,
    nms_kernel,
    nms_padded,
    nms_tiles,
    select_combined,
    select_cut,
    select_kfpn,
    select_loop,
)

BACKENDS = ("TF", "XLA", "ONNX")


def compiled(function, inputs, backend):
    """Compiles the function for a backend and returns a call without arguments, which gives the outputs as a list of arrays."""
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
    """Times all forms and prints their table.

    Args:
        title: of the table.
        forms: {name: function of the inputs}; the first one is the reference.
        inputs: arrays.
        difference: (outputs of the reference, outputs of a form) -> words that say how far they differ.
        runs: turns that each form takes.
        backends: columns of the table.
    """
    calls, seconds, notes, differences = {}, {}, [], {}
    reference = None
    for name, function in forms.items():
        for backend in backends:
            try:
                call = compiled(function, inputs, backend)
                start = time.perf_counter()
                result = call()
                first = time.perf_counter() - start
            except Exception as error:
                # A form that does not compile is a result of this benchmark, whatever the compiler raises.
                notes.append(f"{name}, {backend}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
                continue
            reference = result if reference is None else reference
            differences[name, backend] = difference(reference, result)
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
    show(title, forms, backends, {key: float(np.median(times)) * 1e3 for key, times in seconds.items()}, differences)
    print("\n" + "\n".join(f"- {note}" for note in notes), flush=True)


def show(title, forms, backends, medians, differences):
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
        distinct = dict.fromkeys(differences[name, b] for b in backends if (name, b) in differences)
        print(f"| {name} | {' | '.join(cells)} | {'; '.join(distinct) or 'none measured'} |")


def clustered(rng, batch, count, objects=100, noise=0.1):
    """Returns boxes (batch, count, 4) float32 yxyx: jittered copies of random objects that are 32 to 256 pixels large."""
    centre = rng.uniform(0, IMAGE, (batch, objects, 2))
    size = np.exp(rng.uniform(np.log(32), np.log(256), (batch, objects, 2)))
    pick = rng.integers(0, objects, (batch, count))[..., None]
    centre, size = np.take_along_axis(centre, pick, 1), np.take_along_axis(size, pick, 1)
    centre = centre + rng.normal(size=centre.shape) * size * noise
    size = size * np.exp(rng.normal(size=size.shape) * noise)
    return np.clip(np.concatenate([centre - size / 2, centre + size / 2], -1), 0, IMAGE).astype("float32")


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
        backends = BACKENDS if batch == 1 else BACKENDS[:2]  # batch 2 is training, which is not exported to ONNX
        compare(title, {name: levels(form) for name, form in forms.items()}, boxes, difference, runs, backends)


def roi_outputs(rng, crowded, rois=1000, classes=80):
    """Returns class-specific boxes (1, R, K, 4) and softmax scores (1, R, K).

    In the usual case most RoIs are background, and the others have high scores for one or two classes. In the crowded
    case every RoI has ten classes above .05; the 700 best RoIs lie on five objects and have the same ten classes.
    """
    logits = rng.normal(size=(1, rois, classes + 1))
    if crowded:
        near = np.concatenate([clustered(rng, 1, 700, 5, 0.03), clustered(rng, 1, 300)], axis=1)
        favourites = np.argsort(rng.random((1, rois, classes)), axis=-1)[..., :10]
        favourites[:, :700] = np.arange(10)
        logits[:, 700:, -1] = 8.0  # a score of .07 for each pair, below the .1 of the first 700 RoIs
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
        def rows(detections):
            boxes, _, labels = (output[0] for output in detections[:3])
            return {(label, *box.tolist()) for label, box in zip(labels, boxes, strict=True) if label >= 0}

        return f"{len(rows(reference) - rows(result))} of {len(rows(reference))} detections missing"

    for crowded in (False, True):
        boxes, scores = roi_outputs(rng, crowded)
        case = "crowded" if crowded else "usual"
        title = f"Selection: 1000 RoIs, 80 classes, {case}: {np.sum(scores > 0.05)} pairs above .05"
        compare(title, forms, [boxes, scores], difference, runs)


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
    rois = rois.clip(64, IMAGE - 64)  # away from the border all three forms have the same output
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
    parser.add_argument("--runs", type=int, default=5, help="turns that each form takes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for what in MEASURES if options.what == "all" else (options.what,):
        MEASURES[what](np.random.default_rng(options.seed), options.runs)
    print(f"\nTensorFlow {tf.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
