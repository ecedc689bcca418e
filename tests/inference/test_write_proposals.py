from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

import kfpn.data.formats
import kfpn.inference.write_proposals
from kfpn.cli import command_line as cli
from kfpn.config.run import Config, InputConfig
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.proposal_table import proposals_of, read_proposals
from kfpn.data.record import Record
from kfpn.evaluation.recall import propose_source
from kfpn.evaluation.source_pass import SourcePass
from kfpn.inference.write_proposals import propose
from kfpn.modeling.fast_rcnn import proposals_model
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.workdir import Workdir
from tests.eager import eagerly
from tests.modeling import tiny

CONFIG = Config(
    data="seen", val_data="unseen", batch_size=2, input=InputConfig(64, 96), model=tiny.config(post_nms_train=25)
)


@pytest.fixture(scope="module", autouse=True)
def eager():
    with eagerly():
        yield


def source(name, *sizes):
    boxes, labels = np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
    records = [
        Record(tiny.image(*size, seed=i), i, *size, boxes, labels, np.zeros(0, bool), np.zeros(0, np.float32), f"{i}")
        for i, size in enumerate(sizes)
    ]
    return IterableSource(records, ("a", "b", "c"), name=name)


SEEN, UNSEEN = source("seen", (64, 64), (32, 48), (64, 90)), source("unseen", (64, 64))


def quiet(*sources):
    """Returns a pass over each source that shows no progress bar."""
    return [SourcePass(source, CONFIG, progress=False) for source in sources]


@pytest.fixture(scope="module")
def submodels():
    keras.utils.set_random_seed(0)
    return build_submodels(CONFIG.model)


def test_the_file_holds_the_proposals_of_every_image(submodels, tmp_path):
    path = tmp_path / "kept.npz"
    counts = propose(submodels, CONFIG.model, quiet(SEEN, UNSEEN), path, 30)
    assert list(read_proposals(path)) == ["seen", "unseen"]
    expected = propose_source(proposals_model(submodels, CONFIG.model, 30), *quiet(SEEN))
    table = proposals_of(path, SEEN)
    for row in expected:
        np.testing.assert_allclose(table.boxes[table.rows(row["image_id"])], row["boxes"], atol=1e-3)
        np.testing.assert_allclose(table.scores[table.rows(row["image_id"])], row["scores"], atol=1e-5)
    assert counts == [len(table.boxes), len(proposals_of(path, UNSEEN).boxes)]
    assert 0 < counts[1] <= 30


def test_by_default_each_image_has_as_many_proposals_as_training_or_evaluation_needs(submodels, tmp_path):
    # The settings are 40 proposals at test time and 25 in training: the larger number counts.
    (count,) = propose(submodels, CONFIG.model, quiet(UNSEEN), tmp_path / "kept")
    assert count == 40
    wider = replace(CONFIG.model, post_nms_train=55)
    (count,) = propose(submodels, wider, quiet(UNSEEN), tmp_path / "kept")
    assert count == 55


def test_sources_with_the_same_name_are_refused_before_anything_is_written(submodels, tmp_path):
    with pytest.raises(ValueError, match="sources must have different names, got seen, seen"):
        propose(submodels, CONFIG.model, quiet(SEEN, SEEN), tmp_path / "kept")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def run(submodels, tmp_path, monkeypatch):
    """Returns a work directory, and lets the names "seen", "unseen" and "voc:other" open data that is made here."""
    workdir = Workdir(tmp_path / "run")
    workdir.path.mkdir()
    workdir.prepare(CONFIG, SEEN.class_names, SEEN.category_ids, SEEN.name)
    workdir.save_weights(submodels.weights_model)
    opened = {"seen": SEEN, "unseen": UNSEEN, "voc:other": source("voc:other", (32, 32))}
    monkeypatch.setattr(kfpn.data.formats, "open_source", lambda data, split, *_: opened[data])
    monkeypatch.setattr(kfpn.data.formats, "default_val_data", lambda data: None)
    return workdir.path


def test_the_command_proposes_on_the_runs_own_data(run, tmp_path, capsys):
    path = tmp_path / "kept.npz"
    assert cli.main(["proposals", "--workdir", str(run), "--output", str(path), "--count", "5"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["seen: 3 images, 15 proposals", "unseen: 1 images, 5 proposals"]
    assert list(read_proposals(path)) == ["seen", "unseen"]


def test_proposals_of_other_data_leave_out_the_runs_validation_data(run, tmp_path):
    path = tmp_path / "kept.npz"
    args = ["proposals", "--workdir", str(run), "--output", str(path), "--data", "voc:other"]
    assert cli.main(args) == 0
    assert list(read_proposals(path)) == ["voc:other"]
    assert cli.main([*args, "--val-data", "unseen"]) == 0
    assert list(read_proposals(path)) == ["voc:other", "unseen"]


def test_a_bad_output_count_or_work_directory_is_refused_before_the_work(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kfpn.inference.write_proposals, "propose", lambda *_: pytest.fail("worked before it checked"))
    nowhere = str(Path(tmp_path) / "none" / "kept.npz")
    assert cli.main(["proposals", "--workdir", str(run), "--output", nowhere]) == 2
    assert "must lie in a folder that is there" in capsys.readouterr().err
    with_count = ["proposals", "--workdir", str(run), "--output", str(tmp_path / "a"), "--count", "0"]
    assert cli.main(with_count) == 2
    assert "count must be an integer of at least 1, got 0" in capsys.readouterr().err
    assert cli.main(["proposals", "--workdir", str(tmp_path), "--output", str(tmp_path / "a")]) == 2
    assert "which has no config.json" in capsys.readouterr().err
