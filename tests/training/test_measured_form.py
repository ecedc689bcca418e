import json

import keras
import numpy as np
import pytest

from kfpn.config.run import Config
from kfpn.runs.workdir import Workdir
from kfpn.training import measured_form
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.measured_form import with_measured_form


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Returns a function that chooses a form for one variable, with clocks by which the form `fast` is the faster one."""
    now = [0.0]
    monkeypatch.setattr(measured_form.time, "perf_counter", lambda: now[0])
    weight = keras.Variable(np.ones(3, "float32"))
    taken = []

    def choose(fast, compile="measure"):
        def measure(config):
            def step():
                now[0] += 1.0 if config.compile == fast else 2.0
                taken.append(config.compile)
                weight.assign(weight.value + 1.0)

            return step

        config = Config(compile=compile)
        return with_measured_form(config, Workdir(tmp_path), Cluster(None), {"weight": weight}, measure)

    return choose, weight, taken, tmp_path


@pytest.mark.parametrize("fast", ["whole", "islands"])
def test_the_faster_form_is_taken_and_kept_and_the_state_is_put_back(run, fast, capsys):
    choose, weight, taken, folder = run
    assert choose(fast).compile == fast
    np.testing.assert_array_equal(weight, np.ones(3))
    assert taken.count("whole") == taken.count("islands") == 4
    assert f"compile {fast}: measured" in capsys.readouterr().out
    assert json.loads((folder / "compile.json").read_text())["compile"] == fast
    other = {"whole": "islands", "islands": "whole"}[fast]
    assert choose(other).compile == fast  # a restart measures nothing
    assert len(taken) == 8


def test_nothing_is_measured_unless_it_is_asked_for(run):
    choose, _, taken, _ = run
    assert choose("whole", compile="auto").compile == "auto"
    assert not taken
