"""Measures the speed of the detector as a fraction of the speed that convolutions reach on this machine.

    python benchmarks/speed.py                      # R50-FPN, float32, 512 x 512
    python benchmarks/speed.py --size 800 1216      # a COCO image
    python benchmarks/speed.py --what parts         # where an inference spends its time
    python benchmarks/speed.py --mask               # with masks: of the 100 detections, in training of the positive RoIs

It measures inference (batch 1, 1000 RoIs) and a training step (batch 2, 512 RoIs an image). It prints seconds (median and best),
GFLOP of the matrix products and convolutions in the graph, GFLOP/s, the fraction of the peak, and the peak memory of the process.
Every measurement runs in a process of its own. The peak is the larger of two: the speed of convolutions before and after the
measurement, in the same process, because the speed of a shared machine changes with time.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from kfpn.export.measure import conv_peak, gigaflops, timed


def build(size, batch, mask):
    """Returns (config, submodels, batch of random images with ground truth, noise)."""
    import dataclasses

    import numpy as np
    import tensorflow as tf

    from kfpn.config.presets import preset
    from kfpn.data.object_masks import GRID_SIDE
    from kfpn.losses.training_losses import noise_shapes
    from kfpn.modeling.submodels import build_submodels

    config = preset("coco")
    # The stride stands where torchvision has it: that detector has 127.0 GFLOP at 512 x 512, as published figures do.
    config = dataclasses.replace(
        config, batch_size=batch, model=dataclasses.replace(config.model, stride_on="3x3", mask=mask)
    )
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 0.6, (batch, 20, 2))
    boxes = np.concatenate([start, start + rng.uniform(0.05, 0.4, (batch, 20, 2))], -1) * (*size, *size)
    data = {
        "images": tf.constant(rng.integers(0, 256, (batch, *size, 3)), tf.uint8),
        "image_sizes": tf.constant([size] * batch, tf.int32),
        "gt_boxes": tf.constant(boxes, tf.float32),
        "gt_labels": tf.constant(rng.integers(0, 80, (batch, 20)), tf.int32),
        "gt_crowd": tf.zeros((batch, 20), tf.bool),
        "gt_masks": tf.constant(rng.integers(0, 2, (batch, 20, GRID_SIDE, GRID_SIDE)), tf.uint8),
        "gt_has_mask": tf.ones((batch, 20), tf.bool),
    }
    shapes = noise_shapes(config, *size, 20)
    noise = {name: tf.random.uniform((batch, *shape)) for name, shape in shapes.items()}
    return config, build_submodels(config.model), data, noise


def measure_inference(size, batch, runs, jit, mask):
    """Returns the figures of inference as a dict."""
    import tensorflow as tf

    from kfpn.modeling.detector import inference_model

    config, submodels, data, _ = build(size, batch, mask)
    model = inference_model(submodels, config.model)
    images = tf.cast(data["images"], tf.float32)
    detect = tf.function(lambda images: model(images, training=False), jit_compile=jit)
    gflop = gigaflops(tf.function(lambda: model(images, training=False)).get_concrete_function())
    return report(lambda: detect(images)["boxes"].numpy(), gflop, runs)


def measure_training(size, batch, runs, jit, mask):
    """Returns the figures of a training step (forward, backward, update) as a dict."""
    import tensorflow as tf

    from kfpn.losses.training_losses import training_losses

    config, submodels, data, noise = build(size, batch, mask)
    variables = submodels.weights_model.trainable_variables
    import keras

    optimizer = keras.optimizers.SGD(1e-4, momentum=0.9)
    optimizer.build(variables)

    def backward():
        with tf.GradientTape() as tape:
            losses = training_losses(submodels, config, data, noise)
            total = sum(tf.reduce_sum(loss) for loss in losses.values()) / batch
        return total, tape.gradient(total, [v.value for v in variables])

    compiled = tf.function(backward, jit_compile=jit, autograph=False)

    @tf.function
    def step():
        total, gradients = compiled()
        optimizer.apply(gradients, variables)
        return total

    gflop = gigaflops(tf.function(backward, autograph=False).get_concrete_function())
    return report(lambda: step().numpy(), gflop, runs)


def report(call, gflop, runs):
    """Times a call and returns its figures as a dict: seconds, GFLOP, GFLOP/s, GB."""
    before = conv_peak()
    start = time.perf_counter()
    call()
    compile_seconds = time.perf_counter() - start
    seconds = timed(call, runs)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    peak = max(before, conv_peak())
    return {
        "seconds": median(seconds),
        "best": min(seconds),
        "compile": compile_seconds,
        "gflop": gflop,
        "gflop/s": gflop / median(seconds),
        "peak": peak,
        "fraction": gflop / median(seconds) / peak,
        "best fraction": gflop / min(seconds) / peak,
        "GB": memory,
    }


def measure_parts(size, batch, runs, jit, mask):
    """Returns the median seconds of each part of an inference, compiled on its own."""
    import tensorflow as tf

    from kfpn.modeling.detector import Detector, Rois

    config, submodels, data, _ = build(size, batch, mask)
    detector = Detector(submodels, config.model, padded=False)
    images, sizes = tf.cast(data["images"], tf.float32), data["image_sizes"]
    results = {}

    def part(name, function, *inputs):
        function = tf.function(function, jit_compile=jit)
        seconds = timed(lambda: tf.nest.map_structure(lambda x: x.numpy(), function(*inputs)), runs)
        flop = gigaflops(tf.function(lambda: function.python_function(*inputs)).get_concrete_function())
        results[name] = {"seconds": median(seconds), "gflop": flop, "gflop/s": flop / median(seconds)}
        return function(*inputs)

    levels = part("features", lambda x: detector.features(x, sizes), images)
    outputs = part("rpn", detector.rpn, levels)
    boxes, scores = part("proposals", lambda x, y: detector.propose(x, y, sizes)[:2], levels, outputs)
    pooled = part("roi_align", lambda x, y: detector.pool(x, y, sizes), levels, boxes)
    head_outputs = part("box_head", lambda x: detector.heads({"box": x}), pooled)
    selected = part("detections", lambda x, y, z: detector.select(x, Rois(y, z), sizes), head_outputs, boxes, scores)
    if mask:
        pooled = part("mask_align", lambda x, y: detector.pool(x, y, sizes, "mask"), levels, selected["boxes"])
        part("mask_head", lambda x: detector.heads({"mask": x}), pooled)
    return results


MEASURES = {"inference": measure_inference, "training": measure_training, "parts": measure_parts}


def main():
    """Runs one measurement, or each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=[*MEASURES, "all"], default="all")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--no-jit", action="store_true", help="TensorFlow's kernels instead of XLA")
    parser.add_argument("--mask", action="store_true", help="with a mask head")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        batch = 2 if options.what == "training" else 1
        measure = MEASURES[options.what]
        print(json.dumps(measure(tuple(options.size), batch, options.runs, not options.no_jit, options.mask)))
        return
    for what in MEASURES if options.what == "all" else (options.what,):
        command = [sys.executable, __file__, *sys.argv[1:], "--what", what, "--child"]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        show(what, json.loads(output.splitlines()[-1]))


def show(what, figures):
    """Prints the figures of one measurement."""
    title = "parts of an inference" if what == "parts" else what
    print(f"\n{title}")
    if what == "parts":
        for name, part in figures.items():
            print(
                f"  {name:11} {part['seconds'] * 1e3:7.1f} ms {part['gflop']:7.1f} GFLOP {part['gflop/s']:7.1f} GFLOP/s"
            )
        return
    print(
        f"  {figures['seconds']:.3f} s (best {figures['best']:.3f}), {figures['gflop']:.1f} GFLOP,"
        f" {figures['gflop/s']:.1f} GFLOP/s of {figures['peak']:.1f}: fraction {figures['fraction']:.2f}"
        f" (best {figures['best fraction']:.2f}), peak memory {figures['GB']:.2f} GB, compiled in {figures['compile']:.0f} s"
    )


if __name__ == "__main__":
    main()
