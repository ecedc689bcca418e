import json
import warnings

import numpy as np
import pytest

import kfpn
from tests.training.small_detector import SAMPLING, detector


@pytest.fixture
def begun(tmp_path):
    """Returns a trainable detector and the callback that watches it, as `fit` has them when an epoch ends."""
    built = detector()
    built.input_config = kfpn.InputConfig(short_side=64, long_side=64)
    model, callback = kfpn.trainable(built, **SAMPLING), kfpn.callbacks.WorkDirectory(tmp_path / "run")
    model.compile("sgd")
    model.stop_training = False
    callback.set_model(model)
    callback.on_train_begin()
    return model, callback


def test_weights_that_are_not_finite_do_not_replace_good_ones_and_the_training_ends(begun):
    model, callback = begun
    callback.on_epoch_end(0, {"loss": 1.0})
    before = callback.workdir.weights.read_bytes()
    bias = next(variable for variable in model.trainable_variables if variable.name == "bias")
    bias.assign(np.full(bias.shape, np.nan))
    with pytest.warns(UserWarning, match="bias is not finite after epoch 2, so the training ends, and detector"):
        callback.on_epoch_end(1, {"loss": float("nan")})
    assert model.stop_training
    assert callback.workdir.weights.read_bytes() == before


def test_logs_that_are_no_numbers_are_left_out_of_the_rows(begun):
    _, callback = begun
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        callback.on_epoch_end(0, {"loss": 1.0, "note": "first", "val_AP": 0.5, "val_note": [1, 2]})
    training, figures = map(json.loads, callback.workdir.metrics.read_text().splitlines())
    assert (training["loss"], figures["AP"]) == (1.0, 0.5)
    assert not {"note", "val_note"} & (training.keys() | figures.keys())


def test_a_monitor_of_which_more_is_not_better_or_that_nobody_measures_is_told(begun, tmp_path):
    for monitor in ("val_loss", "loss", "val_roi_class", "AP", "mask_AP50", None):
        with pytest.raises(ValueError, match=r"^monitor must be a figure of which more is better, such as val_AP"):
            kfpn.callbacks.WorkDirectory(tmp_path, monitor=monitor)
    _, callback = begun
    callback.monitor = "val_AP5O"
    with pytest.warns(
        UserWarning, match=r"^val_AP5O is not among the figures \(val_AP, val_AP50\): the newest weights"
    ):
        callback.on_epoch_end(0, {"loss": 1.0, "val_AP": 0.5, "val_AP50": 0.7})


def test_the_configuration_of_another_program_is_not_replaced(begun, tmp_path):
    model, _ = begun
    (tmp_path / "config.json").write_text('{"model_type": "detr"}')
    callback = kfpn.callbacks.WorkDirectory(tmp_path)
    callback.set_model(model)
    with pytest.raises(
        ValueError, match=r"^path must be a folder without files of others, got .* unknown option 'model_type'"
    ):
        callback.on_train_begin()
    assert (tmp_path / "config.json").read_text() == '{"model_type": "detr"}'
