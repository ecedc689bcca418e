"""Trains two steps in bfloat16, in islands, and evaluates: what was measured in training is measured again."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from kfpn.cli.command_line import main
from kfpn.config.presets import preset
from kfpn.config.run import InputConfig
from kfpn.data.formats import open_source
from kfpn.runs import used_precision
from kfpn.runs.workdir import Workdir
from kfpn.training.train import train
from tests.training import made_up


@pytest.fixture
def data(tmp_path):
    """Returns a data set of two pictures in COCO's form."""
    folder = tmp_path / "data"
    folder.mkdir()
    images, annotations = [], []
    for record in made_up.source(100, 2):
        number = len(images) + 1
        Image.fromarray(record.image).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": record.height, "width": record.width})
        for (y1, x1, y2, x2), label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True):
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (y2 - y1) * (x2 - x1), "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, **box})
    categories = [{"id": 1, "name": "green"}, {"id": 2, "name": "red"}]
    file = folder / "boxes.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return f"coco:{file},{folder}"


def scores_of(file):
    return [row["score"] for row in json.loads(file.read_text())]


def test_a_run_in_bfloat16_is_evaluated_in_bfloat16(data, tmp_path, monkeypatch):
    monkeypatch.setattr(used_precision, "has_fast_bfloat16", lambda: True)
    base = preset("shapes")
    small = {"backbone_width": 8, "pyramid_channels": 16, "head_width": 16, "pre_nms_train": 20, "post_nms_train": 20}
    config = replace(
        base,
        data=data,
        val_data=data,
        workdir=str(tmp_path / "run"),
        steps=2,
        batch_size=2,
        log_every=1,
        samples=0,
        compile="islands",
        precision="mixed_bfloat16",
        model=replace(base.model, **small, pre_nms_test=20, post_nms_test=20),
        input=InputConfig(64, 64),
        sampling=replace(base.sampling, rpn_batch=16, roi_batch=8),
    )
    source = open_source(data)
    train(config, source, source)
    in_training = scores_of(Workdir(config.workdir).detections)
    assert in_training
    scores = {}
    for precision in ("auto", "float32"):
        file = tmp_path / f"{precision}.json"
        options = ["--workdir", config.workdir, "--precision", precision, "--detections", str(file)]
        assert main(["evaluate", *options]) == 0
        scores[precision] = scores_of(file)
    assert scores["auto"] == in_training
    assert scores["float32"] != in_training
