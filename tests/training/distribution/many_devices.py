"""Trains and evaluates on a CPU that is split into devices, by the command itself, and compares what the replicas get.

python -m tests.training.distribution.many_devices FOLDER DEVICES [option ...]
"""

import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from kfpn.cli.command_line import main
from kfpn.config.run import Config, InputConfig
from kfpn.data.pipeline import train_batches
from kfpn.training.distribution.replica_batches import distributed_batches
from kfpn.training.distribution.strategy import make_strategy
from tests.training import made_up

TINY = """--model.backbone-width 8 --model.pyramid-channels 16 --model.head-width 32 --model.freeze-stages 4 --no-jit-compile
--input.short-side 64 --input.long-side 64 --steps 2 --eval-every 2 --checkpoint-every 1 --log-every 1 --samples 0
--check-images none"""


def write_coco(folder: Path, count: int) -> str:
    """Writes pictures with their annotations, and returns what `--data` takes."""
    source = made_up.source(0, count)
    pictures, boxes = [], []
    for index in range(count):
        record = source[index]
        Image.fromarray(record.image).save(folder / f"{index}.png")
        pictures.append({"id": index, "file_name": f"{index}.png", "height": 64, "width": 64})
        top, left, bottom, right = map(float, record.boxes[0])
        box = [left, top, right - left, bottom - top]
        boxes.append(
            {"id": index + 1, "image_id": index, "category_id": int(record.labels[0]) + 1, "bbox": box, "iscrowd": 0,
             "area": box[2] * box[3]}
        )  # fmt: skip
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(source.class_names)]
    (folder / "a.json").write_text(json.dumps({"images": pictures, "annotations": boxes, "categories": categories}))
    return f"coco:{folder}/a.json,{folder}"


def require_rows_as_before(devices: int) -> None:
    """Checks that each replica gets the very images that TensorFlow's own slices of whole batches gave it."""
    names = [f"CPU:{index}" for index in range(devices)]
    strategy = make_strategy("mirrored", names, cross_device="reduction_to_one")
    source, config = made_up.source(0, 20), Config(batch_size=2 * devices, input=InputConfig(64, 64))
    new = distributed_batches(strategy, lambda share: train_batches(source, config, 1, share))
    old = strategy.experimental_distribute_dataset(train_batches(source, config, 1))
    for mine, theirs in itertools.islice(zip(new, old, strict=False), 3):
        assert mine.keys() == theirs.keys()
        for name in mine:
            ours, whole = map(strategy.experimental_local_results, (mine[name], theirs[name]))
            assert all(rows.device.endswith(place) for rows, place in zip(ours, names, strict=True)), name
            assert all(np.array_equal(a, b) for a, b in zip(ours, whole, strict=True)), name


if __name__ == "__main__":
    folder, count, options = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    data = write_coco(folder, 8)
    places = ["--data", data, "--val-data", data, "--workdir", str(folder / "run"), "--preset", "shapes"]
    start = time.monotonic()
    code = main(["train", *TINY.split(), *places, "--strategy", "mirrored", "--cpu-devices", str(count), *options])
    print(f"trained in {time.monotonic() - start:.1f} s", flush=True)
    assert code == 0, code
    assert len(tf.config.list_logical_devices("CPU")) == count
    require_rows_as_before(count)
    print("rows as before")
