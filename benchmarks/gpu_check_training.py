"""Measures training steps on GPUs for gpu_check.py: speed on one and all, compile time, memory, threads, determinism."""

import dataclasses
import resource
import time
from pathlib import Path

import numpy as np
from gpu_check_ops import wait


def settings(quick, replicas):
    """Returns the configuration that is measured, and the canvas: 2 images a replica."""
    from kfpn.config.presets import preset

    config = preset("shapes" if quick else "coco")
    model = {"backbone": "resnet18", "backbone_width": 8, "pyramid_channels": 16, "head_width": 32} if quick else {}
    config = dataclasses.replace(config, batch_size=2 * replicas, model=dataclasses.replace(config.model, **model))
    return config, ((64, 64) if quick else (800, 1344))


def batch_of(config, canvas, strategy):
    """Returns one distributed batch of noise with boxes."""
    import tensorflow as tf

    rng, images, boxes = np.random.default_rng(0), config.batch_size, 10
    start = rng.uniform(0, 0.6, (images, boxes, 2))
    corners = np.concatenate([start, start + rng.uniform(0.1, 0.4, (images, boxes, 2))], -1) * (*canvas, *canvas)
    batch = {
        "images": rng.integers(0, 256, (images, *canvas, 3)).astype("uint8"),
        "image_sizes": np.array([canvas] * images, "int32"),
        "gt_boxes": corners.astype("float32"),
        "gt_labels": rng.integers(0, config.model.num_classes, (images, boxes)).astype("int32"),
        "gt_crowd": np.zeros((images, boxes), bool),
        "sample_index": np.arange(images, dtype="int64"),
    }
    data = tf.data.Dataset.from_tensors(batch).repeat().unbatch().batch(images, drop_remainder=True)
    return next(iter(strategy.experimental_distribute_dataset(data)))


def stepper(quick, kind, compiled=True):
    """Returns the configuration, the strategy, a training step and the canvas."""
    import keras
    from scaling import build_step

    from kfpn.training.distribution.strategy import make_strategy

    keras.utils.set_random_seed(0)
    strategy = make_strategy(kind)
    config, canvas = settings(quick, strategy.num_replicas_in_sync)
    config = dataclasses.replace(config, jit_compile=compiled)
    return config, strategy, build_step(config, strategy), canvas


def threads():
    """Returns how many threads this process has."""
    return int(
        next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Threads")).split()[
            1
        ]
    )


def gigabytes():
    """Returns the most memory so far: of the first GPU, or of the process where there is none."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure_steps(quick, kind):
    """Returns rows about compiling, speed, memory and threads of steps on some devices."""
    config, strategy, step, canvas = stepper(quick, kind, compiled=not quick or kind == "one_device")
    replicas, rows, before = strategy.num_replicas_in_sync, [], threads()
    where = f"{kind}, {replicas} replica(s)"
    for name, size in (("first", canvas), ("second", (canvas[1], canvas[0]) if canvas[0] != canvas[1] else (96, 64))):
        batch, start = batch_of(config, size, strategy), time.perf_counter()
        wait(step(batch))
        rows.append(
            (
                f"{where}: the {name} canvas until its first step is done",
                time.perf_counter() - start,
                "s",
                "tracing and compiling; COCO has some 5 to 10 canvases, each at every start",
            )
        )
    batch, count = batch_of(config, canvas, strategy), 3 if quick else 20
    wait(step(batch))
    compiled, start = threads(), time.perf_counter()
    for _ in range(count):
        results = step(batch)
    wait(results)
    seconds = (time.perf_counter() - start) / count
    rows.append(
        (
            f"{where}: images",
            config.batch_size / seconds,
            "images/s",
            "N replicas should give nearly N times one; without the input pipeline",
        )
    )
    rows.append((f"{where}: a step", 1000 * seconds, "ms", "a step of 2 images at 800 x 1344 is 2.1 TFLOP a GPU"))
    rows.append(
        (
            f"{where}: most memory",
            gigabytes(),
            "GB",
            f"with {config.batch_size // replicas} images a replica; of the GPU, or of the process on a CPU",
        )
    )
    rows.append(
        (f"{where}: threads that compiling added", compiled - before, "", "some dozens for each device are usual")
    )
    rows.append(
        (
            f"{where}: threads that {count} more steps added",
            threads() - compiled,
            "",
            "0 is right; one or more a step is the leak of tensorflow issue 56752: use --no-jit-compile or one process a GPU",
        )
    )
    return rows


def one(quick):
    """Measures steps on one device."""
    return measure_steps(quick, "one_device")


def all_devices(quick):
    """Measures steps on all GPUs of the machine, or on the CPU, in MirroredStrategy."""
    return measure_steps(quick, "mirrored")


def determinism(quick):
    """Takes the same steps twice, from the same weights, without and with TensorFlow's deterministic kernels."""
    import keras
    import tensorflow as tf

    rows = []
    for name in ("as it is", "with enable_op_determinism"):
        if name != "as it is":
            keras.utils.set_random_seed(0)
            tf.config.experimental.enable_op_determinism()
        try:
            ends = [losses_of(quick), losses_of(quick)]
            apart = float(np.abs(np.subtract(*ends)).max())
            rows.append(
                (
                    f"largest difference of losses between two runs of 3 steps, {name}",
                    apart,
                    "",
                    "0: bit for bit the same",
                )
            )
        except tf.errors.OpError as error:
            rows.append((f"two runs, {name}", None, "", f"refused: {str(error).splitlines()[0][:200]}"))
    return rows


def losses_of(quick):
    """Returns the losses of three steps from fresh weights."""
    config, strategy, step, canvas = stepper(quick, "one_device", compiled=not quick)
    batch = batch_of(config, canvas, strategy)
    return [float(wait(step(batch)["loss"])[0]) for _ in range(3)]


TRAINING_QUESTIONS = {"one": one, "all": all_devices, "determinism": determinism}
