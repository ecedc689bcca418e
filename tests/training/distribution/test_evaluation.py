"""Checks that an evaluation gives the same bits on any number of replicas, and on the chief of several workers."""

import json

import pytest

from tests.training import processes


def answers(*begun):
    results = processes.finish(*begun, timeout=300)
    for code, _, errors in results:
        assert code == 0, errors[-3000:]
    return [json.loads(output.splitlines()[-1]) for _, output, _ in results]


@pytest.fixture(scope="module")
def evaluated():
    (replicas,) = answers(processes.start("distribution.evaluation", "one", "2", "3"))
    chief, other = answers(*processes.start_workers(("worker",), ("worker",), module="distribution.evaluation"))
    assert other == {"worker": None}
    return replicas | chief


@pytest.mark.parametrize("replicas", ["2", "3"])
def test_detections_and_figures_are_the_same_bits_on_any_number_of_replicas(evaluated, replicas):
    assert evaluated[replicas] == evaluated["one"]


def test_each_replica_sees_the_weights_of_the_moment(evaluated):
    before, after = evaluated["3"]
    assert len(before[2]) == len(after[2]) == 11
    assert before[2] != after[2]


def test_the_chief_evaluates_alone_on_all_its_replicas(evaluated):
    assert evaluated["worker"][0] == evaluated["one"][0]
