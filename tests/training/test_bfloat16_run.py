"""Trains two steps in bfloat16, in islands, and evaluates: what was measured in training is measured again."""

import json
from dataclasses import replace

from kfpn.cli.command_line import main
from kfpn.config.presets import preset
from kfpn.config.run import InputConfig
from kfpn.data.formats import open_source
from kfpn.runs import used_precision
from kfpn.runs.workdir import Workdir
from kfpn.training.train import train
from tests.training.kills import write_data


def scores_of(file):
    return [row["score"] for row in json.loads(file.read_text())]


def test_a_run_in_bfloat16_is_evaluated_in_bfloat16(tmp_path, monkeypatch):
    data = write_data(tmp_path / "data")[-1]
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
