import subprocess
import sys

import pytest
import tensorflow as tf

from kfpn.training.determinism import with_determinism
from tests.training import processes, standin

SCRIPT = """
import sys
import numpy as np
from kfpn.training.determinism import with_determinism
from kfpn.training.distribution.strategy import make_strategy
from tests.training.distribution import same_answer
from dataclasses import replace
case = sys.argv[1]
free, _ = same_answer.run_case(case, 2, make_strategy("one_device"))
with_determinism(replace(same_answer.detector_config(), deterministic=True))
fixed, _ = same_answer.run_case(case, 2, make_strategy("one_device"))
assert all(np.array_equal(a, b) for a, b in zip(free, fixed, strict=True))
print("same bits")
"""


def run(case):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, case], capture_output=True, text=True, env=processes.environment(), check=False
    )
    assert done.stdout.endswith("same bits\n"), done.stderr[-3000:]


def test_on_a_cpu_deterministic_ops_train_and_give_the_same_bits_as_the_others():
    run("standin_sync_bn")


@pytest.mark.slow
def test_no_op_of_the_detector_is_refused_as_not_deterministic_on_a_cpu():
    run("detector_gn")


def test_on_gpus_nothing_is_compiled_and_a_line_says_so(monkeypatch):
    called = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: called.append(1))
    config = standin.config(jit_compile=True)
    assert with_determinism(config) is config
    assert not called
    asked = standin.replace(config, deterministic=True)
    assert with_determinism(asked) is asked
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    with pytest.warns(UserWarning, match="compile is off: with --deterministic XLA has no gradient of max pooling"):
        assert with_determinism(asked).compile == "off"
    assert len(called) == 2
