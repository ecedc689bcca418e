import json

import pytest
import tensorflow as tf

from kfpn.config.presets import preset
from kfpn.config.profile_range import parse_profile
from kfpn.config.run import Config, to_dict
from kfpn.runs.checkpoint import Progress
from kfpn.runs.other_options import compare_configs
from kfpn.runs.workdir import Workdir
from kfpn.training.profile_steps import StepProfile


@pytest.fixture
def recorded(monkeypatch):
    """Stands in for TensorFlow's profiler, and returns the list of what it is asked to do."""
    calls = []

    class Trace:
        def __init__(self, name, step_num, _r):
            self.number = step_num

        def __enter__(self):
            calls.append(("step", self.number))

        def __exit__(self, *_):
            calls.append(("end", self.number))

    monkeypatch.setattr(tf.profiler.experimental, "start", lambda folder: calls.append("start"))
    monkeypatch.setattr(tf.profiler.experimental, "stop", lambda: calls.append("stop"))
    monkeypatch.setattr(tf.profiler.experimental, "Trace", Trace)
    return calls


def take_steps(profile, progress, count):
    step = profile.of(lambda batch: {"loss": tf.constant(1.0)})
    with profile:
        for _ in range(count):
            step(None)
            progress.step += 1


@pytest.mark.parametrize(("text", "steps"), [(None, None), ("5", (None, 5)), ("7-7", (7, 7)), ("100-104", (100, 104))])
def test_steps_to_profile_are_a_number_or_first_and_last(text, steps):
    assert parse_profile(text) == steps


@pytest.mark.parametrize("text", ["", "0", "-5", "9-3", "1-", "x", "1.5", "5,6", "٣"])
def test_other_steps_are_refused_with_an_example(text):
    with pytest.raises(
        ValueError, match="profile must be a number of steps, like 5, or the first and the last of them"
    ):
        Config(profile=text)


def test_the_steps_that_were_named_are_profiled_with_the_wait_between_them(tmp_path, recorded, capsys):
    progress = Progress(step=2)
    take_steps(StepProfile("4-5", tmp_path / "profile", progress, 10), progress, 6)
    assert recorded == ["start", ("step", 4), ("end", 4), ("step", 5), ("end", 5), "stop"]
    assert f"profile of steps 4 to 5: {tmp_path / 'profile'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("taken", "last", "steps"), [(0, 100, [11, 12]), (50, 100, [61, 62]), (0, 3, [2, 3]), (0, 1, [1])]
)
def test_a_number_of_steps_begins_when_the_run_has_warmed_up(tmp_path, recorded, taken, last, steps):
    progress = Progress(step=taken)
    take_steps(StepProfile("2", tmp_path / "profile", progress, last), progress, last - taken)
    assert [call[1] for call in recorded if call[0] == "step"] == steps


def test_a_run_that_ends_early_still_writes_its_profile(tmp_path, recorded):
    progress = Progress()
    take_steps(StepProfile("2-9", tmp_path / "profile", progress, 10), progress, 3)
    assert recorded[-2:] == [("end", 4), "stop"]


@pytest.mark.parametrize(("steps", "taken"), [("3-5", 4), ("20-30", 0)])
def test_steps_that_the_run_does_not_take_are_warned_of(tmp_path, recorded, steps, taken):
    with pytest.warns(UserWarning, match=f"profile must name steps from {taken + 1} to 10, which this run still takes"):
        profile = StepProfile(steps, tmp_path / "profile", Progress(step=taken), 10)
    take_steps(profile, Progress(step=taken), 2)
    assert recorded == []
    assert not (tmp_path / "profile").exists()


def test_a_folder_that_cannot_be_written_is_warned_of_before_the_first_step(tmp_path, recorded):
    (tmp_path / "profile").write_text("a file")
    with pytest.warns(UserWarning, match="the profile can't be written .* the run goes on without it"):
        profile = StepProfile("1-2", tmp_path / "profile", Progress(), 10)
    take_steps(profile, Progress(), 2)
    assert recorded == []


def test_only_the_chief_profiles_and_nothing_is_made_without_the_option(tmp_path, recorded):
    for profile in (
        StepProfile("1-2", tmp_path / "a", Progress(), 10, active=False),
        StepProfile(None, tmp_path / "b", Progress(), 10),
    ):
        take_steps(profile, Progress(), 2)
    assert recorded == []
    assert list(tmp_path.iterdir()) == []


def test_tensorflow_writes_a_profile_on_a_cpu(tmp_path):
    progress = Progress()
    profile = StepProfile("2-3", tmp_path / "profile", progress, 4)
    compute = tf.function(lambda batch: {"loss": tf.reduce_sum(batch @ batch)})
    step = profile.of(compute)
    with profile:
        for _ in range(4):
            step(tf.ones((8, 8)))
            progress.step += 1
    (file,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert b"train" in file.read_bytes()


def test_the_option_is_no_part_of_the_run(tmp_path):
    config = preset("shapes")
    workdir = Workdir(tmp_path / "run")
    workdir.check_writable()
    profiled = type(config)(**{**vars(config), "profile": "5"})
    workdir.prepare(profiled, ("a",), (1,), "by hand")
    assert json.loads(workdir.config.read_text(encoding="utf-8"))["profile"] is None
    assert workdir.read_config() == config
    assert compare_configs(to_dict(config), to_dict(profiled)) == []
