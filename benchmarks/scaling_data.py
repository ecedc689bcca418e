"""Makes what `scaling.py` measures with: a configuration with one size of canvas, a strategy, and JPEG files if no data is given."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from kfpn.config.presets import preset
from kfpn.config.run import Config, InputConfig
from kfpn.data.formats import open_source
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.record import Record, Source
from kfpn.data.toy_scenes import CLASS_NAMES, scene
from kfpn.training.distribution.strategy import make_strategy

SIDE = 640  # pixels of a made file: about the size of COCO's images; being square, it fills the canvas
NOISE = 9.0  # standard deviation, on the scale 0 to 255: the files then have about as many bytes a pixel as COCO's


def make_jpegs(folder: Path, count: int, side: int = SIDE) -> Source:
    """Writes scenes of `shapes`, enlarged and with noise like a camera's, as JPEG files, and opens them.

    Args:
        folder: an existing one, where the files go.
        count: number of files.
        side: of the images, pixels.
    """
    records = []
    for index in range(count):
        rng = np.random.default_rng(index)
        drawn = scene(rng)
        large = np.asarray(Image.fromarray(drawn.image).resize((side, side), Image.Resampling.BICUBIC), np.float32)
        noisy = np.clip(large + rng.normal(0, NOISE, large.shape), 0, 255).astype(np.uint8)
        path = folder / f"{index:05d}.jpg"
        Image.fromarray(noisy).save(path, quality=90)
        boxes = (drawn.boxes * (side / drawn.image.shape[0])).astype(np.float32)
        areas = (drawn.areas * (side / drawn.image.shape[0]) ** 2).astype(np.float32)
        crowd = np.zeros(len(boxes), bool)
        records.append(Record(str(path), index, side, side, boxes, drawn.labels, crowd, areas, path.name))
    return IterableSource(records, CLASS_NAMES, name=f"made JPEG files of {side} x {side}")


def open_data(data: str | None, folder: Path, count: int, side: int = SIDE) -> Source:
    """Opens the data that `--data` names, as `kfpn train` does, or makes files if it names none."""
    return make_jpegs(folder, count, side) if data is None else open_source(data, "train")


def describe_data(source: Source) -> str:
    """Returns one line: the number of images, their median size, and the mean bytes of the first 64 files."""
    sizes = [Path(r.image).stat().st_size for r in (source[i] for i in range(min(64, len(source)))) if _is_file(r)]
    bytes_ = f", {np.mean(sizes) / 1024:.0f} KB each" if sizes else ""
    height, width = np.median(source.sizes, 0)
    return f"{source.name}: {len(source)} images, median {height:.0f} x {width:.0f}{bytes_}"


def _is_file(record: Record) -> bool:
    return isinstance(record.image, str)


def build_config(name: str, side: int, batch_size: int, classes: int, precision: str, jit_compile: bool) -> Config:
    """Returns a preset with one square canvas, and a learning rate that leaves the weights as they are.

    Args:
        name: of the preset.
        side: pixels of the canvas; no image is larger, and all are padded to it, so that the step is compiled once.
        batch_size: images of a step, over all replicas.
        classes: number of the data's classes.
        precision: as in `Config`.
        jit_compile: as in `Config`.
    """
    base = preset(name)
    return dataclasses.replace(
        base,
        batch_size=batch_size,
        precision=precision,
        jit_compile=jit_compile,
        model=dataclasses.replace(base.model, num_classes=classes),
        input=InputConfig(side, side, divisor=side),
        # With random weights and frozen norms, training would diverge within the steps that are timed.
        optimizer=dataclasses.replace(base.optimizer, learning_rate=1e-12),
    )


def strategy_of(replicas: int):
    """Returns a strategy of `replicas` GPUs, or of as many logical CPUs where there is no GPU.

    Call it before TensorFlow does anything else in the process.

    Raises:
        ValueError: when there are GPUs, but fewer than `replicas`.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus and replicas > len(gpus):
        raise ValueError(f"replicas must be at most the number of GPUs ({len(gpus)}), got {replicas}")
    if gpus:
        tf.config.set_visible_devices(gpus[:replicas], "GPU")
    elif replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    if replicas == 1:
        return make_strategy("one_device")
    if gpus:
        return make_strategy("mirrored")
    return make_strategy("mirrored", [f"CPU:{i}" for i in range(replicas)], cross_device="reduction_to_one")
