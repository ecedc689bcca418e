"""Hostile requests to an export in a process of its own: it must not die, hang or take much memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.export.saved_model.hostile_files import bmp, gif, png

HERE = Path(__file__).parent
CHILD = """
import resource, sys, tensorflow as tf
detect = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
good = open(sys.argv[2], "rb").read()
detect(image_bytes=tf.constant([good]))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
bad = [open(path, "rb").read() for path in sys.argv[3:]]
for batch in [[file] for file in bad] + [bad[-1:] * 5, [*bad, good]]:
    outputs = detect(image_bytes=tf.constant(batch))
assert outputs["num_detections"][-1] > 0
print(int(peak() - before))
"""


def run(*arguments, seconds=600):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=seconds,
        check=False,
    )


@pytest.fixture(scope="module")
def good(photo, encoded, tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.jpg"
    path.write_bytes(encoded(photo(96, 128), "JPEG"))
    return path


def test_neither_webp_nor_large_headers_take_the_process_or_its_memory(exported, good, photo, tmp_path):
    from PIL import Image

    frames = [Image.fromarray(photo(64, 96, seed)) for seed in range(2)]
    frames[0].save(tmp_path / "0.webp", save_all=True, append_images=frames[1:])
    frame = (0, 0, 20, 20, 1)
    lying = [b"\x2c" + b"\0\0\0\0\x88\x13\x88\x13\0" + b"\x02\x02\x4c\x01\0"] * 100  # 100 frames of 5000 x 5000
    files = [
        png(20_000, 20_000, rows=1),
        bmp(20_000, 20_000),
        gif((60_000, 60_000), [frame]),
        gif((20, 20), [frame, *lying]),
    ]
    files.append(png(6000, 6000))  # 36 million pixels are within the limit; five of them are decoded one after another
    for i, file in enumerate(files):
        (tmp_path / f"{i + 1}.img").write_bytes(file)
    paths = [tmp_path / "0.webp", *(tmp_path / f"{i + 1}.img" for i in range(len(files)))]
    result = run("-c", CHILD, exported, good, *paths)
    assert result.returncode == 0, result.stderr[-2000:]
    # Four images of 108 MB may be decoded at the same time. As floats they would have 430 MB each.
    assert int(result.stdout) < 1000


@pytest.mark.slow
def test_2000_mutated_images_are_answered_or_refused(exported, good, photo, encoded, tmp_path):
    count = int(os.environ.get("KFPN_MUTATIONS", "2000"))
    kinds = {
        "progressive": encoded(photo(80, 60), "JPEG", progressive=True),
        "png": encoded(photo(50, 70)),
        "gif": gif((60, 50), [(0, 0, 60, 50, 1), (5, 5, 20, 20, 2)], before=b"\x21\xf9\x04\x01\0\0\x02\0"),
        "bmp": encoded(photo(30, 40), "BMP"),
        "table": bmp(40, 30, bits=8, pixels=1200),
        "webp": encoded(photo(40, 50), "WEBP"),
    }
    for name, content in kinds.items():
        (tmp_path / name).write_bytes(content)
    paths = [good, *(tmp_path / name for name in kinds)]
    result = run(HERE / "answer_mutated.py", exported, -(-count * 4 // 3), 0, *paths, seconds=3600)
    print(result.stdout)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["answered"] > count // 10
    assert sum(found["refused"].values()) > count // 10
