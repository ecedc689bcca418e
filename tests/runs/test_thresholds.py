import json

import pytest

from kfpn.runs.atomic_files import write_json
from kfpn.runs.thresholds import read_thresholds, require_thresholds, weights_digest, write_thresholds
from kfpn.runs.workdir import Workdir


class Weights:
    """Saves a text as the weights of a model."""

    def __init__(self, text):
        self.text = text

    def save_weights(self, path):
        path.write_text(self.text)


@pytest.fixture
def workdir(tmp_path):
    workdir = Workdir(tmp_path / "run")
    workdir.path.mkdir()
    write_json(workdir.classes, {"class_names": ["ant", "bee"], "category_ids": [1, 2]})
    workdir.save_weights(Weights("first"))
    return workdir


def keep(workdir, *thresholds, names=("ant", "bee")):
    rows = [{"name": name, "threshold": score} for name, score in zip(names, thresholds, strict=True)]
    write_thresholds(workdir, rows, {"data": "unseen", "weights": weights_digest(workdir)})


def test_thresholds_are_read_as_they_were_written(workdir):
    assert read_thresholds(workdir) is None
    keep(workdir, 0.25, 1)
    assert read_thresholds(workdir) == require_thresholds(workdir) == (0.25, 1.0)


def test_new_weights_of_a_training_remove_them_and_say_so(workdir):
    keep(workdir, 0.25, 0.5)
    with pytest.warns(
        UserWarning, match=r"thresholds.json is void and was removed: the weights are new; kfpn evaluate"
    ):
        workdir.save_weights(Weights("second"))
    assert read_thresholds(workdir) is None


def test_other_weights_make_them_void_which_is_said(workdir):
    keep(workdir, 0.25, 0.5)
    workdir.weights.write_text("copied from elsewhere")
    with pytest.warns(UserWarning, match=r"thresholds.json is void: it belongs to other weights; kfpn evaluate"):
        assert read_thresholds(workdir) is None


def test_missing_ones_name_the_command_that_makes_them(workdir):
    with pytest.raises(ValueError, match=r"without thresholds.json: kfpn evaluate --workdir .*run --best-thresholds"):
        require_thresholds(workdir)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"classes": [{"name": "ant"}]}', '{"classes": [{"name": "ant", "threshold": 1.5}]}', "{"]
)
def test_a_damaged_file_is_an_error_that_names_it(workdir, content):
    workdir.thresholds.write_text(content)
    with pytest.raises(ValueError, match=r"thresholds.json must "):
        read_thresholds(workdir)


def test_thresholds_of_other_classes_are_an_error(workdir):
    keep(workdir, 0.25, 0.5, names=("bee", "ant"))
    with pytest.raises(ValueError, match=r"must have the classes of .*classes.json, got bee, ant"):
        read_thresholds(workdir)
    assert json.loads(workdir.thresholds.read_text())["data"] == "unseen"
