"""Tests `kfpn.train` on JAX: the losses of TensorFlow, the same bits after a kill, refused steps, and any number of devices."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kfpn.inference.evaluate_segments import measure_segments, open_segment_pass
from kfpn.modeling.networks import build_network
from kfpn.runs.workdir import Workdir
from kfpn.training.validation_loss import ValidationLoss
from tests.eager import eagerly
from tests.training import made_up
from tests.training.backends import small_run
from tests.training.kills import same_rows, same_state
from tests.training.test_other_backends import QUICKLY_COMPILED

ROOT = Path(__file__).resolve().parents[3]
STEPS = 20

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")


@pytest.fixture(scope="module")
def run_on_jax(tmp_path_factory):
    """Returns a function that trains on JAX in another process, where TensorFlow can't be imported; all share what was compiled."""
    compiled = tmp_path_factory.mktemp("compiled")

    def run(folder, *changes, exit_code=0):
        env = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT), **QUICKLY_COMPILED}
        env |= {"JAX_COMPILATION_CACHE_DIR": str(compiled), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "tests.training.backends.small_run", str(folder), *map(json.dumps, changes)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1200)
        assert done.returncode == exit_code, done.stderr[-3000:]
        if exit_code:
            return []
        got = json.loads(done.stdout.splitlines()[-1])
        assert got["tensorflow"] == []
        return got["runs"]

    return run


def rows_of(workdir, *names):
    """Returns the rows of training metrics: (steps, names)."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return np.array([[row[name] for name in names] for row in rows if "lr" in row])


def commands_on_jax(run_on_jax, workdir, folder):
    """Checks that a run is evaluated, and looks at a picture, by commands on JAX."""
    record, picture, found, figures = (
        made_up.source(100, 1)[0],
        folder / "one.png",
        folder / "found",
        folder / "figures.json",
    )
    Image.fromarray(record.image).save(picture)
    y1, x1, y2, x2 = record.boxes[0].tolist()
    box = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": record.areas[0].item(),
        "iscrowd": 0,
    }
    images = [{"id": 1, "file_name": picture.name, "height": record.height, "width": record.width}]
    categories = [{"id": 1, "name": "green"}, {"id": 2, "name": "red"}]
    (folder / "one.json").write_text(json.dumps({"images": images, "annotations": [box], "categories": categories}))
    evaluate = [
        "evaluate",
        "--workdir",
        str(workdir),
        "--data",
        f"coco:{folder / 'one.json'},{folder}",
        "--json",
        str(figures),
    ]
    predict = ["predict", str(picture), "--workdir", str(workdir), "--output", str(found)]
    assert run_on_jax(folder / "unused", {"command": evaluate}, {"command": predict}) == [{"code": 0}, {"code": 0}]
    assert 0.0 <= json.loads(figures.read_text())["AP"] <= 1.0
    assert (found / picture.name).exists()


LOSSES = ("rpn_class", "rpn_box", "roi_class", "roi_box", "loss")


@needs_jax
def test_a_killed_run_goes_on_with_the_same_bits_and_on_tensorflow_with_the_same_losses(run_on_jax, tmp_path):
    options = {"steps": STEPS, "eval_every": STEPS, "accumulate": 2}
    whole, parts, other = tmp_path / "whole", tmp_path / "parts", tmp_path / "other"
    (final,) = run_on_jax(whole, options)
    run_on_jax(parts, {**options, "kill_at": 2}, exit_code=-signal.SIGKILL)
    assert [path.name for path in (parts / "0/checkpoints").glob("*.npz")] == ["step_00000001.npz"]
    shutil.copytree(parts / "0", other / "0")
    (again,) = run_on_jax(parts, options)
    same_state(whole / "0", parts / "0", STEPS)
    same_rows(whole / "0", parts / "0")
    assert final["AP"] == again["AP"]
    commands_on_jax(run_on_jax, whole / "0", tmp_path)
    with eagerly():
        on_tensorflow = small_run.trained(other / "0", **options)
    np.testing.assert_allclose(rows_of(other / "0", *LOSSES), rows_of(whole / "0", *LOSSES), rtol=1e-3, atol=1e-6)
    assert on_tensorflow["AP"] == pytest.approx(final["AP"], abs=0.02)
    files = [{path.name for path in (folder / "0").iterdir()} for folder in (whole, other)]
    assert files[0] == files[1]
    assert len(list((whole / "0/tensorboard").iterdir())) == 1


@needs_jax
@pytest.mark.slow
def test_the_answer_does_not_depend_on_the_number_of_devices(run_on_jax, tmp_path):
    same = {"steps": STEPS, "eval_every": STEPS, "batch_size": 8, "log_every": 1}
    shared = {**same, "strategy": "mirrored", "cpu_devices": 8}
    finals = run_on_jax(tmp_path, shared, {**shared, "accumulate": 4}, same)
    for other in (tmp_path / "1", tmp_path / "2"):
        np.testing.assert_allclose(rows_of(other, *LOSSES), rows_of(tmp_path / "0", *LOSSES), rtol=1e-5)
        name = f"checkpoints/step_{STEPS:08d}.npz"
        with np.load(tmp_path / "0" / name) as one, np.load(other / name) as two:
            for key in set(one.files) - {"progress"}:
                np.testing.assert_allclose(one[key], two[key], atol=1e-5, err_msg=key)
    assert len({final["AP"] for final in finals}) == 1


@needs_jax
def test_a_run_that_diverges_stops_before_the_step_and_names_what_was_first_not_finite(run_on_jax, tmp_path):
    options = {"optimizer": {"learning_rate": 1e9, "warmup_steps": 0, "clip_norm": None}}
    (got,) = run_on_jax(tmp_path, options)
    assert "must be finite, got" in got["error"]
    assert "first to go was the output of layer" in got["error"]
    report = json.loads((tmp_path / "0/nan/report.json").read_text())
    with np.load(tmp_path / f"0/checkpoints/step_{report['step'] - 1:08d}.npz") as kept:
        assert all(np.isfinite(kept[name]).all() for name in kept.files if name != "progress")


@needs_jax
def test_segments_are_learnt_on_two_devices_and_tensorflow_measures_the_same(run_on_jax, tmp_path):
    options = {
        "model": {"task": "segments", "segment_width": 16, "max_segments": 40}, "sampling": {"segment_batch": 32},
        "optimizer": {"learning_rate": 0.02, "warmup_steps": 0}, "steps": 8, "eval_every": 8, "val_loss": True,
        "strategy": "mirrored", "cpu_devices": 2,
    }  # fmt: skip
    (final,) = run_on_jax(tmp_path, options)
    masks = rows_of(tmp_path / "0", "segment_mask")[:, 0]
    assert masks[0] == pytest.approx(10 * np.log(2), abs=0.1)
    assert masks[-1] < masks[0]
    run, validation = Workdir(tmp_path / "0"), made_up.source(100, 3, name="validation", kind=made_up.with_masks)
    config = run.read_config()
    submodels = build_network(config)
    submodels.weights_model.load_weights(run.weights)
    with eagerly():
        losses = ValidationLoss(submodels, config, validation).measure()
        recall = measure_segments(run.path, open_segment_pass(run.path, validation))
    assert losses == pytest.approx({name: final[name] for name in losses}, rel=1e-3)
    assert recall["AR@100"] == pytest.approx(final["AR@100"], abs=0.05)


@needs_jax
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"strategy": "multi_worker"},
            "strategy must be one_device or mirrored with KERAS_BACKEND=jax, got 'multi_worker'",
        ),
        (
            {"model": {"norm": "sync_bn"}},
            "model.norm must be bn, gn or frozen_bn with KERAS_BACKEND=jax, got 'sync_bn'",
        ),
        ({"cross_device": "nccl"}, "cross_device must be auto with KERAS_BACKEND=jax, got 'nccl'"),
        (
            {"model": {"mask": True}, "sampling": {"mask_targets": "polygons"}},
            "sampling.mask_targets must be grid with",
        ),
    ],
)
def test_what_jax_can_not_do_is_refused_in_one_line(changes, line):
    from kfpn.training.backends.jax_devices import require_options_of_jax

    with pytest.raises(ValueError, match=f"^{re.escape(line)}"):
        require_options_of_jax(small_run.config("run", **changes))
