"""Tests steps whose loss is not finite: they are refused or skipped, recorded, diagnosed, and computed again."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from kfpn.cli import main
from kfpn.data.pipeline import train_batches
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.checkpoint import Checkpoints
from kfpn.training.nonfinite.diagnose import diagnose
from kfpn.training.nonfinite.policy import MAX_SKIPPED_IN_A_ROW
from kfpn.training.train import train
from tests.eager import eagerly
from tests.training import made_up, standin, test_loop
from tests.training.distribution import same_answer


class StandInRecorder:
    """Stands in for a recorder: keeps the steps and states that it is asked to record."""

    def __init__(self, variables, done=False):
        self.variables, self.done, self.records = variables, done, []

    def record(self, step, row, progress):
        self.records.append((step, progress.step, {name: v.numpy() for name, v in self.variables.items()}))
        return "noted"


def bad_losses(steps, batch_size=4):
    def losses(submodels, config, batch, noise):
        values = standin.losses(submodels, config, batch, noise)
        first = tf.reduce_any([tf.reduce_any(batch["sample_index"] == (step - 1) * batch_size) for step in steps])
        return {**values, "roi_box": values["roi_box"] * tf.where(first, np.nan, 1.0)}

    return losses


def run(path, config, losses, done=False):
    """Runs the stand-in, with `done` as if nan/ held a step already, and returns (state, recorder, progress or error)."""
    made = []

    def recorder(variables):
        made.append(StandInRecorder(variables, done))
        return made[0]

    try:
        state, end = test_loop.start(path, config, losses=losses, recorder=recorder)
    except ValueError as error:
        state, end = {name: variable.numpy() for name, variable in made[0].variables.items()}, error
    return state, made[0], end


def rare(**fields):
    return replace(standin.config(), checkpoint_every=100, eval_every=100, **fields)


def require_equal(state, expected):
    for name in state:
        np.testing.assert_array_equal(state[name], expected[name], err_msg=name)


def test_a_loss_that_is_noticed_steps_later_leaves_the_state_from_before_its_step(tmp_path):
    whole, _, _ = run(tmp_path / "whole", rare(steps=4), standin.losses)
    state, recorder, error = run(tmp_path / "bad", rare(steps=9, log_every=8), bad_losses([5]))
    assert "roi_box must be finite, got nan at step 5; noted" in str(error)
    ((step, before, kept),) = recorder.records
    assert (step, before) == (5, 4)
    # The two runs have different numbers of steps. Their learning rates do not differ yet in the first four.
    require_equal(whole, kept)
    require_equal(whole, state)
    assert Checkpoints(tmp_path / "bad/checkpoints", {}).steps() == [4]


def test_a_skipped_step_changes_no_weight_and_is_the_same_whether_recorded_or_not(tmp_path):
    config = rare(on_nan="skip", log_every=3, steps=7)
    with pytest.warns(UserWarning, match="got nan at step 4; noted. This step is skipped"):
        recorded, recorder, progress = run(tmp_path / "recorded", config, bad_losses([4]))
    with pytest.warns(UserWarning, match="got nan at step 4: this step is skipped"):
        unrecorded, other, _ = run(tmp_path / "unrecorded", config, bad_losses([4]), done=True)
    require_equal(recorded, unrecorded)
    assert [record[:2] for record in recorder.records] == [(4, 3)]
    assert not other.records
    assert progress.step == 7
    rows = [json.loads(line) for line in (tmp_path / "recorded/metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row.get("skipped")) for row in rows] == [(3, None), (6, 1.0), (7, None)]
    assert all(np.isfinite(row["loss"]) for row in rows)
    before, _, _ = run(tmp_path / "before", rare(steps=3), standin.losses)
    after, _, _ = run(tmp_path / "after", replace(config, steps=4), bad_losses([4]), done=True)
    moved = [name for name in before if not np.array_equal(before[name], after[name])]
    assert moved
    # The step is counted, and the average of the weights is updated. Weights and batch norms' statistics do not change.
    assert not [name for name in moved if name.startswith("model/")]


def test_a_run_that_skips_stops_after_too_many_skipped_steps_in_a_row(tmp_path):
    steps = MAX_SKIPPED_IN_A_ROW + 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, _, error = run(tmp_path, rare(on_nan="skip", steps=steps), bad_losses(range(2, steps)), done=True)
    assert "skipping does not help" in str(error)
    assert f"at step {MAX_SKIPPED_IN_A_ROW + 1}" in str(error)


def test_an_infinite_scaled_gradient_of_a_finite_loss_is_not_recorded(tmp_path):
    config = rare(precision="mixed_float16", steps=3)
    state, recorder, progress = run(tmp_path, config, standin.overflowing)
    assert progress.step == 3
    assert not recorder.records
    assert 2.0**14 in [value for value in state.values() if value.shape == ()]


@pytest.fixture(scope="module")
def healthy():
    config = same_answer.detector_config("frozen_bn", steps=2, mask=True)
    batch = next(iter(train_batches(made_up.source(0, 8, kind=made_up.with_masks), config)))
    return build_submodels(config.model), config, batch


def test_a_step_whose_values_are_all_finite_has_no_first_fault(healthy):
    finding = diagnose(*healthy, tf.constant(1.0))
    assert finding.first is None
    assert all(np.isfinite(value) for value in [*finding.losses.values(), finding.grad_norm])


@pytest.mark.parametrize("layer", ["features/stem_conv", "rpn/rpn_deltas", "box_head/head_fc2", "mask_head/mask_conv2"])
def test_the_layer_whose_output_overflows_first_is_named(healthy, layer):
    submodels, config, batch = healthy
    part, _, name = layer.partition("/")
    models = {"features": submodels.features, "rpn": submodels.rpn}
    models |= {f"{name}_head": head for name, head in submodels.heads.items()}
    kernel = models[part].get_layer(name).kernel
    old = kernel.numpy()
    kernel.assign(np.full(old.shape, 3e38, np.float32))
    try:
        assert f"the output of layer {layer} (" in diagnose(submodels, config, batch, tf.constant(1.0)).first
    finally:
        kernel.assign(old)


def test_the_layer_whose_gradient_is_the_first_that_is_not_finite_is_named(healthy):
    submodels, config, batch = healthy

    def losses(submodels, config, batch, noise):
        logits = submodels.rpn(submodels.features(batch["images"]))["logits"][0]
        # The loss is finite, but its slope at zero is not.
        return {"rpn_class": tf.reduce_sum(tf.sqrt(tf.abs(logits - tf.stop_gradient(logits))), axis=1)}

    finding = diagnose(submodels, config, batch, tf.constant(1.0), losses)
    assert finding.losses["rpn_class"] == 0.0
    assert finding.first.startswith("the gradient of the output of layer rpn/")


def test_a_run_that_diverges_names_what_was_first_not_finite_and_its_step_can_be_replayed(tmp_path, capsys):
    base = same_answer.detector_config(steps=6, workdir=str(tmp_path), strategy="one_device", samples=1)
    config = replace(base, optimizer=replace(base.optimizer, learning_rate=1e9, warmup_steps=0, clip_norm=None))
    with (
        eagerly(),
        pytest.raises(
            ValueError, match=r"must be finite, got (nan|inf) at step \d; first to go was the \w+ of"
        ) as error,
    ):
        train(config, made_up.source(0, 8), made_up.source(100, 2))
    report = json.loads((tmp_path / "nan/report.json").read_text())
    assert report["first"] in str(error.value)
    assert len(list((tmp_path / "nan").glob("*.png"))) == 4
    assert Checkpoints(tmp_path / "checkpoints", {}).steps()[-1] == report["step"] - 1
    capsys.readouterr()
    assert main(["replay-nan", "--workdir", str(tmp_path)]) == 0
    assert f"first to go was {report['first']}" in capsys.readouterr().out
    (tmp_path / "nan/batch.npz").write_bytes(b"PK")
    assert main(["replay-nan", "--workdir", str(tmp_path)]) == 2
    assert "batch.npz must be the batch that a run kept" in capsys.readouterr().err


def test_replaying_a_run_without_such_a_step_is_an_error(tmp_path, capsys):
    assert main(["replay-nan", "--workdir", str(tmp_path)]) == 2
    assert "must be of a run that met a loss that was not finite" in capsys.readouterr().err
