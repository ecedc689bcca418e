"""Tests what TF_CONFIG says about the workers of a run, and what is refused."""

import json
import re

import pytest

from kfpn.cli.found_init import with_found_init
from kfpn.training.distribution.tf_config import workers_of_tf_config

PAIR = {"worker": ["a:1", "b:2"]}


@pytest.fixture
def told(monkeypatch):
    """Returns a function that sets TF_CONFIG and reads it."""

    def read(cluster, kind="worker", index=0):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
        return workers_of_tf_config()

    return read


def test_workers_have_the_order_of_the_list_and_a_chief_of_its_own_comes_first(told):
    assert told(PAIR, index=1) == (["a:1", "b:2"], 1)
    with_chief = {"chief": ["c:3"], **PAIR}
    assert told(with_chief, "chief") == (["c:3", "a:1", "b:2"], 0)
    assert told(with_chief, index=1) == (["c:3", "a:1", "b:2"], 2)


def test_nothing_is_known_without_the_variable(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert workers_of_tf_config() is None


@pytest.mark.parametrize(
    ("cluster", "task", "line"),
    [
        ({"worker": ["a"]}, {}, "TF_CONFIG's worker must be a list of host:port, got ['a']"),
        ({"worker": ["a:1", "a:1"]}, {}, "TF_CONFIG must name each host:port once, got ['a:1', 'a:1']"),
        ({**PAIR, "ps": ["c:1"]}, {}, "TF_CONFIG must name only tasks of type chief and worker, got ps"),
        (
            PAIR,
            {"index": 2},
            "TF_CONFIG's task must be one of its cluster's (2 in all), got {'type': 'worker', 'index': 2}",
        ),
        ([], {}, "TF_CONFIG must have objects cluster and task, such as "),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(told, cluster, task, line):
    with pytest.raises(ValueError, match=f"^{re.escape(line)}"):
        told(cluster, **task)


def test_on_jax_a_checkpoint_is_found_only_where_the_workers_are_named(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(
        ValueError, match=r"^init must be a file with strategy multi_worker and KERAS_BACKEND=jax where"
    ):
        with_found_init(["train", "--init", "auto", "--strategy", "multi_worker"])
