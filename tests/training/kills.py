"""Runs the real command line, kills it at random moments, and compares it with a run that is not killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tests.training.made_up import source

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = [
    "--model.backbone",
    "resnet18",
    "--model.backbone-width",
    "8",
    "--model.pyramid-channels",
    "16",
    "--model.head-width",
    "32",
    "--model.pre-nms-train",
    "50",
    "--model.post-nms-train",
    "20",
    "--model.pre-nms-test",
    "20",
    "--model.post-nms-test",
    "20",
    "--input.short-side",
    "64",
    "--input.long-side",
    "64",
    "--sampling.rpn-batch",
    "16",
    "--sampling.roi-batch",
    "8",
    "--batch-size",
    "2",
    "--no-jit-compile",
    "--strategy",
    "one_device",
    "--log-every",
    "3",
    "--eval-every",
    "8",
    "--checkpoint-every",
    "1",
    "--samples",
    "1",
    "--optimizer.warmup-steps",
    "2",
    "--optimizer.ema-decay",
    "0.9",
    "--mask",
    "--model.mask-channels",
    "8",
]


def write_data(folder: Path) -> list[str]:
    """Writes the made-up pictures as a COCO data set, and returns the options that name it."""
    for name, first, count in (("train", 0, 6), ("val", 100, 2)):
        pictures, images, annotations = source(first, count), [], []
        (folder / name).mkdir(parents=True)
        for index in range(count):
            record = pictures[index]
            Image.fromarray(record.image).save(folder / name / f"{index}.png")
            images.append({"id": index, "file_name": f"{index}.png", "height": 64, "width": 64})
            y1, x1, y2, x2 = (float(side) for side in record.boxes[0])
            annotations.append(
                {"id": index + 1, "image_id": index, "category_id": int(record.labels[0]) + 1, "iscrowd": 0,
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1),
                 "segmentation": [[x1, y1, x2, y1, x1, y2]]}
            )  # fmt: skip
        categories = [{"id": 1, "name": "green"}, {"id": 2, "name": "red"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{name}.json").write_text(json.dumps(content))
    data = [f"coco:{folder / name}.json,{folder / name}" for name in ("train", "val")]
    return ["--data", data[0], "--val-data", data[1]]


def begin(workdir: Path, data: list[str], steps: int, *more: str) -> subprocess.Popen:
    command = [sys.executable, "train.py", *OPTIONS, *data, "--steps", str(steps), "--workdir", str(workdir), *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output[-3000:]
    return output


def newest(workdir: Path) -> int:
    return max((int(path.stem[5:]) for path in (workdir / "checkpoints").glob("step_*.npz")), default=0)


def kill_at(process: subprocess.Popen, workdir: Path, step: int, writing: bool, delay: float) -> bool:
    """Kills a run `delay` seconds after the checkpoint of a step, or while a later one is written. Returns False if it had ended."""
    while process.poll() is None:
        aside = any((workdir / "checkpoints").glob("*.tmp"))
        if newest(workdir) >= step and (aside or not writing):
            time.sleep(0 if writing else delay)
            break
        time.sleep(0.0005)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return alive


def compare(whole: Path, parts: Path, steps: int) -> None:
    """Asserts that two finished runs hold the same bits: all of their state, and all figures except times."""
    same_state(whole, parts, steps)
    same_rows(whole, parts)
    finals = [without_times(json.loads((run / "final.json").read_text())) for run in (whole, parts)]
    assert finals[0] == finals[1]


def same_state(whole: Path, parts: Path, steps: int) -> None:
    name = f"checkpoints/step_{steps:08d}.npz"
    with np.load(whole / name) as one, np.load(parts / name) as two:
        assert one.files == two.files
        for key in one.files:
            if key != "progress":
                np.testing.assert_array_equal(one[key], two[key], err_msg=key)


def same_rows(whole: Path, parts: Path) -> None:
    rows = [
        [without_times(json.loads(row)) for row in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (whole, parts)
    ]
    assert rows[0] == rows[1]


def without_times(value):
    return {key: item for key, item in value.items() if key not in ("seconds", "images_per_second")}


def random_kills(kills: int, steps: int) -> list[tuple[int, bool, float]]:
    """Returns (step, True to kill while a file is written, delay in seconds) of each kill, by the step."""
    seed = int(os.environ.get("KFPN_SEED", random.SystemRandom().randrange(10**6)))
    print(f"kills drawn from KFPN_SEED={seed}")
    rng = random.Random(seed)
    moments = sorted(rng.sample(range(1, steps), kills))
    return [(step, index % 2 == 1, rng.uniform(0, 0.5)) for index, step in enumerate(moments)]
