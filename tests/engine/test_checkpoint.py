import keras
import numpy as np
import pytest

from kfpn.engine.checkpoint import Checkpoints, Progress, named_variables


def state(value: float = 0.0, size: int = 3):
    return named_variables(model=[keras.Variable(np.full(size, value), name="kernel", dtype="float32")])


def test_a_checkpoint_brings_variables_and_progress_back(tmp_path):
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
def test_a_truncated_newest_file_is_passed_over_with_a_warning(tmp_path, length):
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


def test_when_all_are_damaged_nothing_starts_silently_from_scratch(tmp_path):
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
