"""One replica, two replicas and two processes end with the same weights, after the same losses."""

import functools
import itertools

import numpy as np
import pytest

from tests.training import processes

QUICK = ("standin_frozen_bn", "standin_sync_bn", "overflow")
PARTS = ("standin_frozen_bn_in_parts", "standin_sync_bn_in_parts")
KINDS = ("mirrored", "worker")


def run(folder, steps, cases, of_workers):
    one, other = processes.tf_configs()
    begun = [
        processes.start("distribution.same_answer", "one,mirrored", folder / "one.npz", steps, *cases),
        processes.start("distribution.same_answer", "worker", folder / "worker.npz", steps, *of_workers, TF_CONFIG=one),
        processes.start(
            "distribution.same_answer", "worker", folder / "other.npz", steps, *of_workers, TF_CONFIG=other
        ),
    ]
    for code, _, errors in processes.finish(*begun, timeout=3000):
        assert code == 0, errors[-3000:]
    found = {}
    for name in ("one", "worker"):
        with np.load(folder / f"{name}.npz") as file:
            found |= {key: file[key] for key in file.files}
    return found


def apart(found, kind, case, base=None, least=1e-3):
    """Returns how far metrics and states of two runs lie apart, relative to the largest value of each array.

    Arrays whose largest value is below `least` count as if that was it: biases that just began hold little but rounding.
    """
    base = base or f"one/{case}/"
    keys = [key for key in found if key.startswith(base)]
    assert len(keys) > 3
    far = []
    for key in keys:
        want, got = found[key], found[f"{kind}/{case}/{key.removeprefix(base)}"]
        finite = np.isfinite(want)
        np.testing.assert_array_equal(finite, np.isfinite(got))
        if finite.any():
            scale = max(np.abs(want[finite]).max(), least)
            far.append(np.abs(want[finite] - got[finite]).max() / scale)
    return max(far)


def rms(values):
    return np.sqrt(np.mean(np.square(values, dtype=np.float64)))


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return run(tmp_path_factory.mktemp("quick"), 6, QUICK + PARTS, ("overflow", *PARTS))


@pytest.mark.parametrize("case", QUICK + PARTS)
def test_two_replicas_end_where_one_does(quick, case):
    assert apart(quick, "mirrored", case) < 1e-5


@pytest.mark.parametrize("case", ["overflow", *PARTS])
def test_two_processes_end_where_one_does(quick, case):
    assert apart(quick, "worker", case) < 1e-5


@pytest.mark.parametrize("kind", ["one", *KINDS])
def test_a_batch_in_parts_is_the_same_step(quick, kind):
    assert apart(quick, kind, "standin_frozen_bn_in_parts", "one/standin_frozen_bn/") < 1e-5


@pytest.mark.parametrize("kind", ["one", *KINDS])
def test_an_overflow_on_one_replica_skips_the_step_on_all_of_them(quick, kind):
    scales = quick[f"{kind}/overflow/{max_index(quick, kind) - 1:03d}"]
    assert scales == 2.0**14


def max_index(found, kind):
    return max(int(key.split("/")[-1]) for key in found if key.startswith(f"{kind}/overflow/0"))


NORMS = ("frozen_bn", "gn", "sync_bn")
DETECTOR = [f"detector_{norm}{parts}" for norm in NORMS for parts in ("", "_in_parts")]
MIXED = [f"{case}_mixed" for case in DETECTOR] + ["detector_gn_fp16"]


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Returns (case) -> what all runs of its norm found; the processes of one norm at a time, for they take memory."""

    @functools.cache
    def of(norm):
        cases = [case for case in DETECTOR + MIXED if norm in case]
        return run(tmp_path_factory.mktemp(norm), 20, cases, cases)

    return lambda case: of(next(norm for norm in NORMS if norm in case))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "case"), list(itertools.product(KINDS, DETECTOR)))
def test_a_real_detector_ends_the_same_on_two_replicas_and_in_two_processes(detector, kind, case):
    assert apart(detector(case), kind, case, least=1e-2) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "case"), list(itertools.product(KINDS, MIXED)))
def test_a_real_detector_in_mixed_precision_ends_within_a_hundredth(detector, kind, case):
    found = dict(detector(case))
    one, other = (found.pop(f"{run}/{case}/rows") for run in ("one", kind))
    # The first column is grad_norm, of which bfloat16 leaves two digits.
    np.testing.assert_allclose(other[:, 1:], one[:, 1:], rtol=1e-2, atol=1e-5)
    states = [
        (found[key], found[f"{kind}/{key.removeprefix('one/')}"]) for key in found if key.startswith(f"one/{case}/")
    ]
    assert len(states) > 100
    assert max(rms(b - a) / max(rms(a), 1e-2) for a, b in states) < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["frozen_bn", "gn"])
def test_a_real_detector_takes_the_same_steps_in_parts(detector, norm):
    assert apart(detector(norm), "one", f"detector_{norm}_in_parts", f"one/detector_{norm}/", least=1e-2) < 1e-5
