"""Lets memory run out for real, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

LIMIT = """
import os, resource, sys
def leave(megabytes):
    used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, resource.RLIM_INFINITY))
def limited(function, megabytes):
    # The first call traces, which needs memory of its own and ends the process where it gets none.
    calls = []
    def call(*args):
        calls.append(1)
        if len(calls) == 2:
            leave(megabytes)
        return function(*args)
    return call
"""

TRAIN = """
from kfpn.cli import command_line
from kfpn.training import train
build = train.build_train_step
train.build_train_step = lambda *args, **named: limited(build(*args, **named), 200)
sys.exit(command_line.main(sys.argv[1:]))
"""

PREDICT = """
import kfpn, numpy as np
from kfpn.evaluation import detect
model = kfpn.build_detector(class_names=("a", "b"), backbone="resnet18", backbone_width=32, pyramid_channels=32, head_width=32)
model.input_config = kfpn.Config().input
image = np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)
model.compiled_detector = limited(detect.detect_function(model), 40)
try:
    kfpn.predict(model, [image, image])
except MemoryError as error:
    print(type(error).__name__, error, file=sys.stderr)
    sys.exit(2)
"""


def run(script, *args):
    root = Path(__file__).parents[2]
    env = os.environ | {
        # Large tensors are given back to the system at once, so that the limit leaves what it says.
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_ARENA_MAX": "2",
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(root),
    }
    done = subprocess.run(
        [sys.executable, "-c", LIMIT + script, *args], capture_output=True, text=True, env=env, timeout=900, check=False
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_training_ends_with_one_line(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (600, 600, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.jpg")
    rows = [f'{{"id": {i + 1}, "image_id": {i}, "category_id": 1, "bbox": [50, 60, 200, {300 + i}]}}' for i in range(4)]
    images = [f'{{"id": {i}, "file_name": "{i}.jpg", "width": 600, "height": 600}}' for i in range(4)]
    (tmp_path / "a.json").write_text(
        f'{{"images": [{", ".join(images)}], "annotations": [{", ".join(rows)}], "categories": [{{"id": 1, "name": "cat"}}]}}'
    )
    line = run(
        TRAIN, "train", "--data", f"coco:{tmp_path}/a.json,{tmp_path}/images", "--workdir", str(tmp_path / "run"), "--steps", "3",
        "--batch-size", "2", "--log-every", "1", "--samples", "0", "--no-jit-compile", "--strategy", "one_device",
        "--model.backbone", "resnet18", "--model.backbone-width", "8", "--model.pyramid-channels", "16",
        "--model.head-width", "32", "--input.short-side", "800", "--input.long-side", "800",
    )  # fmt: skip
    assert line.startswith("kfpn: error: memory must be enough for step 2, with 2 images of 800 x 800 pixels at once")
    assert "--accumulate 2" in line


def test_a_prediction_ends_with_one_line():
    assert run(PREDICT).startswith("OutOfMemoryError memory must be enough for 1 image of ")
