import os
import stat

import keras
import pytest

from kfpn.export.trained import next_version, open_either, open_trained, written_aside


def test_the_first_version_is_1_and_the_next_is_above_the_highest(tmp_path):
    assert next_version(tmp_path / "new") == tmp_path / "new" / "1"
    for name in ("1", "7", "latest", ".9-aside"):
        (tmp_path / name).mkdir()
    assert next_version(tmp_path) == tmp_path / "8"


def test_a_file_in_the_place_of_the_model_is_refused(tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(ValueError, match="model must be a folder, got a file"):
        next_version(tmp_path / "model")


def test_a_target_written_aside_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "model"
    with written_aside(target) as aside:
        aside.mkdir()
        (aside / "weights").write_text("w")
        assert not target.exists()
    assert (target / "weights").read_text() == "w"
    assert os.listdir(target.parent) == ["model"]


def test_an_error_while_writing_leaves_nothing(tmp_path):
    def half(path):
        path.mkdir()
        (path / "weights").write_text("w")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"), written_aside(tmp_path / "model") as aside:
        half(aside)
    assert os.listdir(tmp_path) == []


def test_an_existing_target_is_refused_and_stays(tmp_path):
    (tmp_path / "model").write_text("old")
    with pytest.raises(ValueError, match="model must not exist yet"), written_aside(tmp_path / "model"):
        pytest.fail("must not be entered")
    assert (tmp_path / "model").read_text() == "old"


def test_a_target_that_another_export_wrote_first_is_kept(tmp_path):
    def both(aside):
        for path in (aside, tmp_path / "1"):
            path.mkdir()
        (tmp_path / "1" / "weights").write_text("faster")

    with pytest.raises(ValueError, match="must not exist yet, but it"), written_aside(tmp_path / "1") as aside:
        both(aside)
    assert (tmp_path / "1" / "weights").read_text() == "faster"
    assert os.listdir(tmp_path) == ["1"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ValueError, match="must lie in a folder that can be written"),
        written_aside(tmp_path / "file" / "x"),
    ):
        pytest.fail("must not be entered")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(ValueError, match="must lie in a folder that can be written"), written_aside(tmp_path / "x"):
        pytest.fail("must not be entered")


def test_a_trained_detector_has_its_classes_and_its_models_with_and_without_norms(tiny_workdir):
    trained = open_trained(tiny_workdir)
    assert trained.class_names == ("ant", "bee", "cat")
    assert trained.category_ids == (3, 7, 18)
    assert any(layer.name.endswith("_norm") for layer in trained.unfolded.features.layers)
    assert not any(layer.name.endswith("_norm") for layer in trained.submodels.features.layers)


def test_a_folder_that_is_no_work_directory_is_refused(tmp_path):
    with pytest.raises(ValueError, match="workdir must be one that `kfpn train` made"):
        open_trained(tmp_path)


@pytest.mark.parametrize("open_it", [open_trained, open_either])
def test_another_backend_can_not_export_and_says_what_to_do(open_it, tiny_workdir, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(
        ValueError, match=r"^KERAS_BACKEND must be tensorflow to export, got 'jax': export in a process of its own"
    ):
        open_it(tiny_workdir)
