from types import SimpleNamespace

import pytest
import tensorflow as tf

from kfpn.training.distribution.strategy import describe_strategy, make_strategy, replica_batch_size


def test_without_a_gpu_both_strategies_are_one_replica_on_the_cpu():
    for name, kind in (("one_device", tf.distribute.OneDeviceStrategy), ("mirrored", tf.distribute.MirroredStrategy)):
        strategy = make_strategy(name, ["CPU:0"])
        assert isinstance(strategy, kind)
        assert strategy.num_replicas_in_sync == 1
        assert describe_strategy(strategy, 6) == f"strategy {name}: 1 replica(s) on CPU:0; global batch 6, 6 a replica"


def test_a_strategy_that_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match=r"strategy must be one of one_device, mirrored, multi_worker, got 'tpu'"):
        make_strategy("tpu")
    with pytest.raises(ValueError, match=r"devices must be among .*CPU:0.*GPU:7"):
        make_strategy("mirrored", ["GPU:7"])
    with pytest.raises(ValueError, match="devices must be one name"):
        make_strategy("one_device", ["CPU:0", "CPU:0"])
    with pytest.raises(ValueError, match="devices must be one name or more"):
        make_strategy("mirrored", [])


def test_the_global_batch_must_be_a_multiple_of_the_replicas():
    assert replica_batch_size(SimpleNamespace(num_replicas_in_sync=3), 12) == 4
    with pytest.raises(ValueError, match=r"batch_size must be a multiple of the number of replicas \(3\), got 16"):
        replica_batch_size(SimpleNamespace(num_replicas_in_sync=3), 16)
