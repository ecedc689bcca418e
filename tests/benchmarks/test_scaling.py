"""Tests the benchmark of throughput: what it measures, which part it says limits training, and when it says that memory grows."""

import itertools
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pipeline
import pytest
import scaling
from scaling_data import build_config, describe_data, make_jpegs
from scaling_memory import (
    POINTS,
    bytes_an_image,
    grows,
    memory_series,
    memory_table,
    plot_memory,
    resident_bytes,
)

from kfpn.data.image import read_size
from kfpn.training.distribution.strategy import make_strategy

MB = 2**20


def _cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def _config(batch_size: int):
    return build_config("shapes", 64, batch_size, 5, "float32", False)


def test_the_slower_part_is_the_one_that_limits():
    assert scaling.limiting(pipeline=10.0, step=20.0) == "input pipeline"
    assert scaling.limiting(pipeline=20.0, step=10.0) == "training step"


def test_the_table_has_every_row_and_its_ratios():
    rows = [
        (1, {"pipeline": [40.0, 60.0, 50.0], "step": [4.0, 3.0, 5.0], "both": [3.0, 3.0, 4.0]}),
        (2, {"pipeline": [8.0], "step": [16.0], "both": [6.0]}),
    ]
    text = scaling.table(rows)
    # The medians of the parts are 50, 4 and 3. The median of 40/4, 60/3, 50/5 is 10; that of 3/4, 3/3, 4/5 is .8.
    assert _cells(text)[2:] == [
        ["1", "50", "4", "3", "10", "0.8", "training step"],
        ["2", "8", "16", "6", "0.5", "0.75", "input pipeline"],
    ]
    assert (
        "1 replica(s): the training step limits; the pipeline makes 10 times the images/s of the step (3 wanted: enough)"
        in text
    )
    assert "2 replica(s): the input pipeline limits" in text
    assert "(3 wanted: too little)" in text
    assert "2 replicas train 2.00 times the images/s of 1" in text


def test_a_rate_counts_the_images_of_the_calls_that_were_timed(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(scaling, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    calls = []
    # The clock goes on by one second each time it is read: at the start, for each call from the third on, and at the end.
    images_per_second = scaling.rate(lambda: calls.append(1), 4, 3.0)
    timed = len(calls) - 1  # the first call warms up
    assert timed == 4
    assert images_per_second == pytest.approx(timed * 4 / 4.0)


def test_pipeline_step_and_both_are_measured_in_every_turn(tmp_path):
    source, config, seen = make_jpegs(tmp_path, 4, 80), _config(2), []

    def step(batch):
        seen.append(batch["images"].shape.as_list())
        return {"loss": np.float32(1.0)}

    figures = scaling.measure(source, config, make_strategy("one_device"), step, turns=2, seconds=0.01)
    assert set(figures) == set(scaling.PARTS)
    assert all(len(rates) == 2 and min(rates) > 0 for rates in figures.values())
    # One call compiles. In each of the two turns, the step alone and both together take a warm-up call and at least two more.
    assert len(seen) >= 1 + 2 * 2 * 3
    assert {tuple(shape) for shape in seen} == {(2, 64, 64, 3)}


def test_made_files_are_jpegs_that_fill_the_canvas(tmp_path):
    source = make_jpegs(tmp_path, 3, 96)
    assert [read_size(source[i].image) for i in range(3)] == [(96, 96)] * 3
    assert all(Path(source[i].image).read_bytes()[:2] == b"\xff\xd8" for i in range(3))
    assert re.fullmatch(r"made JPEG files of 96 x 96: 3 images, median 96 x 96, \d+ KB each", describe_data(source))
    batch = next(scaling.feed(source, _config(2), make_strategy("one_device")))
    assert batch["image_sizes"].numpy().tolist() == [[64, 64]] * 2
    assert (batch["gt_labels"].numpy() >= 0).any()


def test_memory_grows_if_a_part_of_each_image_is_kept_and_not_because_of_noise_or_one_jump():
    images = np.arange(1, POINTS + 1) * 1000
    noise = np.random.default_rng(0).normal(0, 2 * MB, POINTS)
    flat = list(zip(images, (700 * MB + noise).astype(int), strict=True))
    leak = list(zip(images, (700 * MB + noise + images * 8192).astype(int), strict=True))
    assert not grows(flat)
    assert grows(leak)  # 1 % of an image of 512 x 512, 70 MB in all
    assert bytes_an_image(leak) == pytest.approx(8192, rel=0.2)
    assert "\nmemory does not grow: " in memory_table(flat)
    assert "\nmemory grows: +" in memory_table(leak)
    # One jump is no leak, however large it is: an allocator may take one more arena.
    jump = [(n, b + (200 * MB if n > 9000 else 0)) for n, b in flat]
    assert not grows(jump)


def test_memory_is_read_at_ten_points_after_the_warm_up(tmp_path):
    taken = itertools.count()
    series = memory_series(taken, 2, 100, 7, measure=lambda: 100 * MB)
    assert [images for images, _ in series] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert next(taken) == 4 + 50  # batches
    assert len(_cells(memory_table(series))) == 2 + POINTS
    plot_memory(series, tmp_path / "new" / "memory.png")
    assert read_size(tmp_path / "new" / "memory.png")[1] > 400
    with pytest.raises(ValueError, match="images must be at least 10 batches of 2, got 19"):
        memory_series(taken, 2, 19, 0)


def test_resident_memory_grows_with_an_array_that_is_held():
    before = resident_bytes()
    held = np.ones(64 * MB, np.uint8)
    assert resident_bytes() - before > 48 * MB
    assert held.all()


def test_the_pipelines_memory_does_not_grow_over_some_hundred_images(tmp_path):
    config = _config(2)
    batches = scaling.feed(make_jpegs(tmp_path, 8, 160), config, make_strategy("one_device"))
    series = memory_series(batches, 2, 600, 100)
    # If each batch were kept, 24 KB each, memory would grow by 6.5 MB. The allocator's own noise is below 2 MB.
    assert not grows(series, 4 * MB), memory_table(series, 4 * MB)


def test_a_number_of_replicas_that_does_not_fit_is_refused_before_anything_is_measured():
    command = [sys.executable, scaling.__file__, "--batch", "3", "--replicas", "1", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: batch must be a multiple of the number of replicas (2), got 3"


@pytest.mark.slow
def test_the_whole_benchmark_prints_a_row_for_one_and_for_two_replicas():
    command = [sys.executable, scaling.__file__, "--preset", "shapes", "--size", "64", "--no-jit", "--files", "8"]
    done = subprocess.run([*command, "--turns", "1", "--seconds", "0.1"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = _cells(done.stdout)[2:]
    assert [row[0] for row in rows] == ["1", "2"]
    assert "made JPEG files of 640 x 640: 8 images" in done.stdout


@pytest.mark.slow
def test_the_pipelines_memory_does_not_grow_over_ten_thousand_images(tmp_path):
    command = [sys.executable, scaling.__file__, "--memory", "--picture", str(tmp_path / "memory.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    assert len(_cells(done.stdout)) == 2 + POINTS
    assert "memory does not grow" in done.stdout


def test_the_pipeline_alone_makes_the_batches_of_a_preset(tmp_path, monkeypatch):
    monkeypatch.setattr("kfpn.data.formats.open_source", lambda data, split: make_jpegs(tmp_path, 4, 64))
    options = SimpleNamespace(data="made", preset="shapes", batch=2, seconds=0.2)
    rate, milliseconds, said = pipeline.images_per_second(options)
    assert rate > 0.0
    assert milliseconds > 0.0
    assert said.startswith("short side 128; made JPEG files of 64 x 64: 4 images")
