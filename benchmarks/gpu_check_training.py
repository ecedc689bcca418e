"""Measures training steps on GPUs for gpu_check.py: speed on one and all, compile time, memory, threads, determinism."""

import dataclasses
import os
import resource
import time
from typing import Any, NamedTuple

import numpy as np
from gpu_check_ops import TINY, wait


class Steps(NamedTuple):
    """Holds what takes the steps that are measured.

    Attributes:
        config: kfpn.config.run.Config, 2 images a replica.
        strategy: of the devices.
        step: batch -> losses, of fresh weights; each canvas is traced and compiled at its first batch.
        variables: that the step changes.
        canvases: height and width of each, in pixels.
    """

    config: Any
    strategy: Any
    step: Any
    variables: list[Any]
    canvases: tuple[tuple[int, int], ...]

    @property
    def replicas(self):
        """Returns how many devices share a batch."""
        return self.strategy.num_replicas_in_sync


def prepare_steps(quick, kind):
    """Returns the `Steps` of a strategy, "one_device" or "mirrored".

    Quick ones are not compiled and have one canvas: on a CPU, XLA takes a minute for each.
    """
    from scaling import build_training

    from kfpn.config.presets import preset
    from kfpn.training.distribution.strategy import make_strategy

    strategy = make_strategy(kind)
    config = preset("shapes" if quick else "coco")
    config = dataclasses.replace(
        config,
        batch_size=2 * strategy.num_replicas_in_sync,
        jit_compile=not quick,
        model=dataclasses.replace(config.model, **(TINY if quick else {})),
    )
    canvases = ((64, 64),) if quick else ((800, 1344), (1344, 800))
    return Steps(config, strategy, *build_training(config, strategy), canvases)


def batch_of(steps, canvas):
    """Returns one distributed batch of noise with 10 boxes an image."""
    import tensorflow as tf

    rng, images, boxes = np.random.default_rng(0), steps.config.batch_size, 10
    start = rng.uniform(0, 0.6, (images, boxes, 2))
    corners = np.concatenate([start, start + rng.uniform(0.1, 0.4, (images, boxes, 2))], -1) * (*canvas, *canvas)
    batch = {
        "images": rng.integers(0, 256, (images, *canvas, 3)).astype("uint8"),
        "image_sizes": np.array([canvas] * images, "int32"),
        "gt_boxes": corners.astype("float32"),
        "gt_labels": rng.integers(0, steps.config.model.num_classes, (images, boxes)).astype("int32"),
        "gt_crowd": np.zeros((images, boxes), bool),
        "sample_index": np.arange(images, dtype="int64"),
    }
    data = tf.data.Dataset.from_tensor_slices(batch).batch(images, drop_remainder=True)
    return next(iter(steps.strategy.experimental_distribute_dataset(data)))


def threads():
    """Returns how many threads this process has."""
    return len(os.listdir("/proc/self/task"))


def gigabytes():
    """Returns the most memory so far: of the first GPU, or of the process where there is none."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure_steps(quick, kind):
    """Returns rows about compiling, speed, memory and threads of steps; see `prepare_steps`."""
    steps = prepare_steps(quick, kind)
    where, rows, before = f"{kind}, {steps.replicas} replica(s)", [], threads()
    for height, width in steps.canvases:
        batch, start = batch_of(steps, (height, width)), time.perf_counter()
        wait(steps.step(batch))
        reading = "tracing and compiling; COCO has some 5 to 10 canvases, each at every start"
        what = f"{where}: a canvas of {height} x {width} until its first step is done"
        rows.append((what, time.perf_counter() - start, "s", reading))
    batch, count = batch_of(steps, steps.canvases[0]), 3 if quick else 20
    wait(steps.step(batch))
    after, start = threads(), time.perf_counter()
    for _ in range(count):
        results = steps.step(batch)
    wait(results)
    seconds = (time.perf_counter() - start) / count
    speed = "N replicas should give nearly N times one; without the input pipeline"
    of = f"with {steps.config.batch_size // steps.replicas} images a replica; of the GPU, or of the process on a CPU"
    leak = "0 is right; one or more a step is the leak of tensorflow issue 56752: use --no-jit-compile or one process a GPU"
    return [
        *rows,
        (f"{where}: images", steps.config.batch_size / seconds, "images/s", speed),
        (f"{where}: a step", 1000 * seconds, "ms", "a step of 2 images at 800 x 1344 is 2.1 TFLOP a GPU"),
        (f"{where}: most memory", gigabytes(), "GB", of),
        (f"{where}: threads that compiling added", after - before, "", "some dozens for each device are usual"),
        (f"{where}: threads that {count} more steps added", threads() - after, "", leak),
    ]


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

    usual = repeat_row(quick, "as it is")
    keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    return [usual, repeat_row(quick, "with enable_op_determinism")]


def repeat_row(quick, name):
    """Returns the row of the difference between two runs, or of the operation that refuses to be deterministic."""
    import tensorflow as tf

    steps = prepare_steps(quick, "one_device")
    batch, start = batch_of(steps, steps.canvases[0]), [np.array(variable) for variable in steps.variables]

    def losses():
        for variable, value in zip(steps.variables, start, strict=True):
            variable.assign(value)
        return [float(wait(steps.step(batch)["loss"])[0]) for _ in range(3)]

    try:
        apart = float(np.abs(np.subtract(losses(), losses())).max())
    except tf.errors.OpError as error:
        return f"two runs, {name}", None, "", f"refused: {str(error).splitlines()[0][:200]}"
    what = f"largest difference of losses between two runs of 3 steps, {name}"
    return what, apart, "", "0: bit for bit the same"


TRAINING_QUESTIONS = {"one": one, "all": all_devices, "determinism": determinism}
