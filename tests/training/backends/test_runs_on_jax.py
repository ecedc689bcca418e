"""Tests `kfpn.train` on JAX: the same bits after a kill, the losses of TensorFlow, and any number of devices."""

import json
import re
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from tests.eager import eagerly
from tests.training import made_up
from tests.training.backends import small_run
from tests.training.backends.small_run import rows_of
from tests.training.kills import same_rows, same_state

LOSSES = ("rpn_class", "rpn_box", "roi_class", "roi_box", "loss")


def commands_on(workdir, folder):
    """Returns commands that look at a run and at a picture; they write `figures.json`, `found`, `report.html` and `sheet.png` into a folder."""
    record, picture = made_up.source(100, 1)[0], folder / "one.png"
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
    run, data = ["--workdir", str(workdir)], f"coco:{folder / 'one.json'},{folder}"
    evaluate = ["evaluate", *run, "--data", data, "--json", str(folder / "figures.json")]
    predict = ["predict", str(picture), *run, "--output", str(folder / "found")]
    report = ["report", *run, "--data", data, "--output", str(folder / "report.html")]
    look = ["data", data, "--output", str(folder / "sheet.png"), "--augmented", "--images", "1"]
    return [{"command": words} for words in (evaluate, predict, report, look, ["list-pretrained"])]


def test_a_killed_run_goes_on_with_the_same_bits_and_on_tensorflow_with_the_same_losses(run_on_jax, tmp_path):
    # A step takes a second here: what is compiled quickly runs slowly.
    options = {"steps": 4, "eval_every": 4, "accumulate": 2}
    whole, parts, other = tmp_path / "whole", tmp_path / "parts", tmp_path / "other"
    (final,) = run_on_jax(whole, options)
    run_on_jax(parts, {**options, "kill_at": 2}, exit_code=-signal.SIGKILL)
    assert [path.name for path in (parts / "0/checkpoints").glob("*.npz")] == ["step_00000001.npz"]
    shutil.copytree(parts / "0", other / "0")
    again, *codes = run_on_jax(parts, options, *commands_on(parts / "0", tmp_path))
    same_state(whole / "0", parts / "0", 4)
    same_rows(whole / "0", parts / "0")
    assert final["AP"] == again["AP"]
    assert codes == [{"code": 0}] * 5
    assert 0.0 <= json.loads((tmp_path / "figures.json").read_text())["AP"] <= 1.0
    for name in ("found/one.png", "report.html", "sheet.png"):
        assert (tmp_path / name).exists(), name
    with eagerly():
        on_tensorflow = small_run.trained(other / "0", **options)
    np.testing.assert_allclose(rows_of(other / "0", *LOSSES), rows_of(whole / "0", *LOSSES), rtol=1e-3, atol=1e-6)
    assert on_tensorflow["AP"] == pytest.approx(final["AP"], abs=0.02)
    files = [{path.name for path in (folder / "0").iterdir()} for folder in (whole, other)]
    assert files[0] == files[1]
    assert len(list((whole / "0/tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_the_answer_does_not_depend_on_the_number_of_devices(run_on_jax, tmp_path):
    same = {"steps": 20, "eval_every": 20, "batch_size": 8, "log_every": 1}
    same["model"] = {"norm": "gn", "backbone_width": 32}  # Batch norms depend on what is computed together.
    shared = {**same, "strategy": "mirrored", "cpu_devices": 8}
    finals = run_on_jax(tmp_path, shared, {**shared, "accumulate": 4}, same)
    for other in (tmp_path / "1", tmp_path / "2"):
        np.testing.assert_allclose(rows_of(other, *LOSSES), rows_of(tmp_path / "0", *LOSSES), rtol=1e-5)
        name = "checkpoints/step_00000020.npz"
        with np.load(tmp_path / "0" / name) as one, np.load(other / name) as two:
            for key in set(one.files) - {"progress"}:
                np.testing.assert_allclose(one[key], two[key], atol=1e-5, err_msg=key)
    assert len({final["AP"] for final in finals}) == 1


@pytest.mark.parametrize(
    ("changes", "line"),
    [
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
    pytest.importorskip("jax")
    from kfpn.training.backends.jax_devices import require_options_of_jax

    with pytest.raises(ValueError, match=f"^{re.escape(line)}"):
        require_options_of_jax(small_run.config("run", **changes))
