"""Tests that the processes of a run load each image once, and that each replica gets the images that it got from whole batches."""

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from kfpn.config.run import Config, InputConfig
from kfpn.data.pipeline import train_batches
from kfpn.data.proposal_table import collect_proposals
from kfpn.training.distribution.replica_batches import distributed_batches, share_of
from kfpn.training.run_data import RunData
from tests.training import made_up, processes

STEPS, SIZE = 5, 12
CONFIG = Config(data="records", batch_size=SIZE, input=InputConfig(64, 64, scale_jitter=(0.8, 1.2)))


class CountedSource:
    """Counts which records are loaded."""

    def __init__(self, source):
        self.source = source
        self.loaded = []

    def __getattr__(self, name):
        return getattr(self.source, name)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        self.loaded.append(index)
        return self.source[index]


def share(worker=0, workers=1, replicas=1):
    return share_of(
        SimpleNamespace(input_pipeline_id=worker, num_input_pipelines=workers, num_replicas_in_sync=replicas)
    )


@pytest.fixture(scope="module")
def source():
    return made_up.source(0, 40)


@pytest.fixture(scope="module")
def whole(source):
    return list(itertools.islice(train_batches(source, CONFIG, 2).as_numpy_iterator(), STEPS))


@pytest.mark.parametrize(
    ("workers", "replicas"), [(1, 1), (1, 2), (1, 3), (1, 4), (1, 6), (1, 12), (2, 2), (2, 4), (3, 12)]
)
def test_replicas_get_the_rows_of_the_whole_batch_bit_for_bit(source, whole, workers, replicas):
    local, size = replicas // workers, SIZE // replicas
    for worker in range(workers):
        batches = train_batches(source, CONFIG, 2, share(worker, workers, replicas)).as_numpy_iterator()
        for step, batch in enumerate(whole):
            for replica in range(worker * local, (worker + 1) * local):
                got = next(batches)
                assert got.keys() == batch.keys()
                for name, value in batch.items():
                    np.testing.assert_array_equal(
                        got[name], value[replica * size : (replica + 1) * size], f"{step} {name}"
                    )


@pytest.mark.parametrize(("workers", "replicas"), [(2, 2), (2, 6), (4, 4)])
def test_a_worker_loads_its_own_images_and_no_others(source, whole, workers, replicas):
    own, ahead = SIZE // workers, 6
    for worker in range(workers):
        counted = CountedSource(source)
        batches = iter(train_batches(counted, CONFIG, 2, share(worker, workers, replicas)))
        for _ in range(STEPS * replicas // workers):
            next(batches)
        del batches
        longer = itertools.islice(train_batches(source, CONFIG, 2).as_numpy_iterator(), STEPS + ahead)
        mine = [row for batch in longer for row in batch["record_index"][worker * own : (worker + 1) * own]]
        assert STEPS * own <= len(counted.loaded) <= (STEPS + ahead) * own
        assert not np.setdiff1d(counted.loaded, mine).size


def test_the_next_batch_waits_for_no_other_worker(source):
    batches = train_batches(source, CONFIG, 0, share(1, 2, 4))
    assert int(batches.cardinality()) == tf.data.INFINITE_CARDINALITY
    assert batches.element_spec["images"].shape.as_list() == [3, None, None, 3]


def test_fixed_proposals_come_with_the_images_of_a_share(source):
    boxes = [np.array([[1, 2, 30, 40 + i]], np.float32) for i in range(40)]
    rows = [{"image_id": i, "boxes": box, "scores": np.ones(1, np.float32)} for i, box in enumerate(boxes)]
    data = RunData(source, None, collect_proposals(source, rows))
    (batch,) = data.batches(CONFIG, 0).take(1).as_numpy_iterator()
    half = data.batches(CONFIG, 0, share(1, 2, 2))
    assert int(half.cardinality()) == tf.data.INFINITE_CARDINALITY
    np.testing.assert_array_equal(next(half.as_numpy_iterator())["proposals"], batch["proposals"][SIZE // 2 :])


@pytest.mark.parametrize(
    "make", [tf.distribute.OneDeviceStrategy, lambda device: tf.distribute.MirroredStrategy([device])]
)
def test_a_strategy_of_one_replica_gets_whole_batches(source, make):
    strategy = make("/cpu:0")
    batch = next(distributed_batches(strategy, lambda own: train_batches(source, CONFIG, 2, own)))
    (expected,) = train_batches(source, CONFIG, 2).take(1).as_numpy_iterator()
    for name, value in expected.items():
        np.testing.assert_array_equal(strategy.experimental_local_results(batch[name])[0], value)


@pytest.mark.slow
def test_two_processes_load_half_of_each_batch_and_the_chief_waits_for_no_other(tmp_path):
    results = processes.finish(
        *processes.start_workers((tmp_path,), (tmp_path,), module="distribution.worker_images"), timeout=300
    )
    config = replace(CONFIG, batch_size=16)
    whole = itertools.islice(train_batches(made_up.source(0, 60), config).as_numpy_iterator(), 10)
    expected = [batch["record_index"].tolist() for batch in whole]
    for worker, (code, output, errors) in enumerate(results):
        assert code == 0, errors[-3000:]
        got = json.loads(output.splitlines()[-1])
        assert got["rows"] == [row[8 * worker : 8 * worker + 8] for row in expected]
        assert 80 <= got["loaded"] <= 80 + 8 * 6
