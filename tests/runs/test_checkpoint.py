import json
import warnings

import keras
import numpy as np
import pytest

from kfpn.runs.checkpoint import Checkpoints, Progress, named_variables


def state(value: float = 0.0, size: int = 3):
    return named_variables(model=[keras.Variable(np.full(size, value), name="kernel", dtype="float32")])


def test_a_checkpoint_restores_variables_and_progress(tmp_path):
    progress = Progress(7, 1.5, 4, {"AP": 0.25, "per_class": {"a": None}}, 4, {"AP": 0.25}, {"loss": 1.0})
    Checkpoints(tmp_path, state(2.5)).save(progress)
    loaded = state()
    assert Checkpoints(tmp_path, loaded).restore() == progress
    np.testing.assert_array_equal(loaded["model/0000"].numpy(), [2.5, 2.5, 2.5])


def test_without_checkpoints_a_run_starts_at_0(tmp_path):
    assert Checkpoints(tmp_path / "none", state()).restore() == Progress()


def test_the_newest_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, state(), keep=2)
    for step in range(1, 7):
        checkpoints.save(Progress(step, best_step=2))
    assert checkpoints.steps() == [2, 5, 6]


@pytest.mark.parametrize("length", [0, 100, -30])
def test_a_truncated_newest_checkpoint_is_skipped_with_a_warning(tmp_path, length):
    variables = state(1.0)
    checkpoints = Checkpoints(tmp_path, variables)
    checkpoints.save(Progress(1))
    variables["model/0000"].assign(np.full(3, 2.0))
    newest = checkpoints.save(Progress(2))
    newest.write_bytes(newest.read_bytes()[:length])
    with pytest.warns(UserWarning, match=r"step_00000002\.npz is damaged"):
        progress = checkpoints.restore()
    assert progress.step == 1
    np.testing.assert_array_equal(variables["model/0000"].numpy(), [1.0, 1.0, 1.0])


def test_a_flipped_byte_is_noticed(tmp_path):
    variables = state(1.0, size=1000)
    checkpoints = Checkpoints(tmp_path, variables)
    checkpoints.save(Progress(1))
    newest = checkpoints.save(Progress(2))
    data = bytearray(newest.read_bytes())
    data[2000] ^= 1
    newest.write_bytes(data)
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoints.restore().step == 1


def test_if_all_checkpoints_are_damaged_restoring_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path, state())
    checkpoints.save(Progress(1)).write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(ValueError, match="must be readable, got 1 damaged"):
        checkpoints.restore()


def test_weights_that_are_not_finite_never_become_a_checkpoint(tmp_path):
    variables = state(1.0)
    checkpoints = Checkpoints(tmp_path, variables)
    checkpoints.save(Progress(1))
    variables["model/0000"].assign([0.0, np.nan, 0.0])
    with pytest.raises(ValueError, match=r"no checkpoint at step 2: .* NaN or inf in kernel"):
        checkpoints.save(Progress(2))
    assert checkpoints.steps() == [1]


def test_variables_of_another_model_are_refused(tmp_path):
    Checkpoints(tmp_path, state(size=3)).save(Progress(1))
    with pytest.raises(ValueError, match=r"must have shape \(4,\), got \(3,\)"):
        Checkpoints(tmp_path, state(size=4)).restore()
    other = named_variables(head=[keras.Variable(0.0, name="bias")])
    with pytest.raises(ValueError, match=r"1 missing .*head/0000.* and 1 unknown .*model/0000"):
        Checkpoints(tmp_path, other).restore()


def test_leftovers_of_a_killed_save_are_ignored_and_removed(tmp_path):
    (tmp_path / "step_00000009.tmp").write_bytes(b"half")
    checkpoints = Checkpoints(tmp_path, state())
    assert checkpoints.restore() == Progress()
    checkpoints.save(Progress(1))
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001.npz"]


def test_no_cut_and_no_flipped_bit_brings_wrong_values(tmp_path):
    rng = np.random.default_rng(3)
    variables = state(1.0, size=50)
    checkpoints = Checkpoints(tmp_path, variables)
    checkpoints.save(Progress(1))
    variables["model/0000"].assign(np.full(50, 2.0))
    newest = checkpoints.save(Progress(2))
    whole = newest.read_bytes()
    for trial in range(300):
        data = bytearray(whole)
        if trial % 3:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        else:
            data = data[: rng.integers(len(data))]
        newest.write_bytes(data)
        variables["model/0000"].assign(np.zeros(50))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            step = checkpoints.restore().step
        assert trial % 3 or step == 1
        np.testing.assert_array_equal(variables["model/0000"].numpy(), np.full(50, float(step)))


def test_a_damaged_newest_file_does_not_push_out_a_good_one(tmp_path):
    checkpoints = Checkpoints(tmp_path, state(), keep=1)
    checkpoints.save(Progress(1))
    (tmp_path / "step_00000003.npz").write_bytes(b"damaged")
    checkpoints.save(Progress(2))
    assert checkpoints.steps() == [2]


@pytest.mark.parametrize(
    ("progress", "message"),
    [
        ({"step": 2, "mood": "good"}, r"no fields but step, .*, got mood; was it made by another version"),
        ({"seconds": 1.0}, r"must have the step 2 of its name, got None"),
        ({"step": 3}, r"must have the step 2 of its name, got 3"),
        ({"step": 2, "best": 3}, r"best must be a dict, got 3"),
        ([], r"must be a JSON object, got '\[\]'"),
    ],
)
def test_progress_of_another_shape_is_refused_with_the_file(tmp_path, progress, message):
    text = np.array(json.dumps(progress))
    np.savez(tmp_path / "step_00000002.npz", **{"model/0000": np.zeros(3, np.float32), "progress": text})
    with pytest.raises(ValueError, match=rf"progress of .*step_00000002\.npz.*{message}"):
        Checkpoints(tmp_path, state()).restore()


def test_progress_without_the_fields_of_later_versions_has_their_defaults(tmp_path):
    text = np.array('{"step": 2}')
    np.savez(tmp_path / "step_00000002.npz", **{"model/0000": np.zeros(3, np.float32), "progress": text})
    assert Checkpoints(tmp_path, state()).restore() == Progress(2)
