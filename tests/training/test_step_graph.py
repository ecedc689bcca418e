"""Counts what the host has to start in a training step: operations outside of the compiled part, for each replica."""

import json

import pytest

from tests.training import processes

BRANCHES = {"If", "StatelessIf", "Switch", "Merge", "Case", "StatelessCase"}
NOISE = {"StatelessRandomUniformV2", "StatelessRandomGetKeyCounter"}
SHALLOW, DEEP, PLAIN = "standin:1:jit", "standin:12:jit", "standin:2:plain"


def graphs(replicas, *cases):
    ((code, output, errors),) = processes.finish(processes.start("step_graph", replicas, *cases))
    assert code == 0, errors[-3000:]
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def traced():
    return graphs(2, SHALLOW, DEEP, PLAIN)


def test_a_compiled_step_has_few_operations_for_each_replica_however_deep_the_network_is(traced):
    counts = {case: sum(traced[case]["kinds"].values()) / 2 for case in (SHALLOW, DEEP)}
    assert counts[DEEP] == counts[SHALLOW]
    assert counts[DEEP] <= 40


def test_a_step_draws_no_noise_and_asks_the_host_for_no_condition(traced):
    for case in (SHALLOW, DEEP, PLAIN):
        assert not (BRANCHES | NOISE) & set(traced[case]["kinds"])


def test_only_statistics_of_norms_that_train_are_kept_and_written_back(traced):
    # Two convolutions with kernel and bias, two norms that train, one dense layer: weights and momenta are 2 x 10. An average
    # of 10 weights, 4 statistics, the step counter and whether the run halts are written as well, on each of 2 replicas.
    assert traced[PLAIN]["kinds"]["AssignVariableOp"] == 2 * (2 * 10 + 10 + 4 + 2)


def test_replicas_share_one_trace_of_forward_and_backward_pass(traced):
    assert {case["traced"] for case in traced.values()} == {1}


@pytest.mark.slow
def test_a_compiled_step_of_the_detector_has_few_operations_for_each_replica():
    result = graphs(8, "detector:0:jit")["detector:0:jit"]
    assert result["variables"] > 100
    assert result["traced"] == 1
    assert sum(result["kinds"].values()) / 8 <= 150
