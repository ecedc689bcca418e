"""Tests how a run chooses its devices, its norms and the words about both."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tensorflow as tf

from kfpn.config.presets import preset
from kfpn.config.run import to_dict
from kfpn.runs.other_options import compare_configs
from kfpn.training.distribution import run_strategy

CPUS = [f"CPU:{index}" for index in range(16)]


@pytest.mark.parametrize(
    ("devices", "batch_size", "accumulate", "count"),
    [
        (1, 4, 1, 1), (2, 4, 1, 2), (3, 4, 1, 2), (4, 4, 1, 4), (5, 4, 1, 4), (6, 4, 1, 4), (8, 4, 1, 4),
        (3, 16, 1, 2), (5, 16, 1, 4), (6, 16, 1, 4), (8, 16, 1, 8), (16, 16, 1, 16),
        (7, 12, 1, 6), (5, 9, 1, 3), (4, 7, 1, 1), (8, 7, 1, 7), (3, 1, 1, 1),
        (8, 16, 4, 4), (8, 16, 16, 1), (2, 4, 4, 1), (3, 12, 2, 3), (2, 4, 3, 1),
    ],
)  # fmt: skip
def test_the_most_replicas_train_whose_shares_are_equal_and_can_be_cut_in_parts(devices, batch_size, accumulate, count):
    assert run_strategy.usable_replicas(devices, batch_size, accumulate) == count


@pytest.mark.parametrize(
    ("devices", "batch_size", "accumulate", "remedy"),
    [
        (3, 4, 1, "--batch-size 6 would use all 3"),
        (6, 4, 1, "--batch-size 6 would use all 6"),
        (8, 4, 1, "--batch-size 8 would use all 8"),
        (3, 16, 1, "--batch-size 18 would use all 3"),
        (5, 16, 2, "--batch-size 20 would use all 5"),
        (8, 16, 4, "--accumulate 2 (the same step) or --batch-size 32 would use all 8"),
        (8, 16, 16, "--accumulate 2 (the same step) or --batch-size 128 would use all 8"),
    ],
)
def test_idle_devices_are_said_with_what_would_use_all(devices, batch_size, accumulate, remedy):
    count = run_strategy.usable_replicas(devices, batch_size, accumulate)
    line = run_strategy.idle_devices_line(CPUS[:devices], count, batch_size, accumulate)
    assert line.startswith(f"{count} of {devices} devices train (CPU:0")
    assert line.endswith(remedy)
    assert "\n" not in line
    assert f"CPU:{count}," not in line


@pytest.mark.parametrize("name", ["shapes", "finetune", "coco"])
@pytest.mark.parametrize("devices", [1, 2, 3, 4, 5, 6, 7, 8, 16])
def test_every_preset_starts_on_any_number_of_devices_and_its_remedy_uses_all(monkeypatch, name, devices):
    made = []
    monkeypatch.setattr(run_strategy, "training_devices", lambda: CPUS[:devices])
    monkeypatch.setattr(run_strategy, "make_strategy", lambda name, devices, cross_device: made.append(devices))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run_strategy.make_run_strategy(preset(name))
    assert preset(name).batch_size % len(made[0]) == 0
    assert len(said) == (len(made[0]) < devices)
    for warning in said:
        size = int(str(warning.message).split("--batch-size ")[1].split()[0])
        assert run_strategy.usable_replicas(devices, size) == devices


def test_split_cpus_are_taken_instead_of_gpus_and_summed_on_one(monkeypatch):
    monkeypatch.setattr(run_strategy, "training_devices", lambda: ["GPU:0", "GPU:1"])
    monkeypatch.setattr(run_strategy, "make_strategy", lambda *a, **k: (a, k))
    config = replace(preset("shapes"), cpu_devices=4)
    expected = (("mirrored", ["CPU:0", "CPU:1", "CPU:2", "CPU:3"]), {"cross_device": "reduction_to_one"})
    assert run_strategy.make_run_strategy(config) == expected
    with pytest.raises(ValueError, match="cross_device must not be nccl with cpu_devices"):
        run_strategy.make_run_strategy(replace(config, cross_device="nccl"))


def test_cpu_devices_go_with_mirrored_alone():
    for strategy in ("one_device", "multi_worker"):
        with pytest.raises(ValueError, match=f"cpu_devices must go with strategy mirrored, got {strategy}"):
            replace(preset("shapes"), strategy=strategy, cpu_devices=2)
    for count in (0, 65):
        with pytest.raises(ValueError, match=f"cpu_devices must be an integer in 1..64, got {count}"):
            replace(preset("shapes"), cpu_devices=count)


def test_a_cpu_is_not_split_after_tensorflow_began():
    present = len(tf.config.list_logical_devices("CPU"))
    run_strategy.split_cpu(None)
    run_strategy.split_cpu(present)
    with pytest.raises(ValueError, match=f"cpu_devices must be set before TensorFlow .* got {present + 1} after that"):
        run_strategy.split_cpu(present + 1)


def test_bn_is_computed_over_all_replicas_and_one_line_says_so():
    config = preset("shapes")
    assert config.model.norm == "bn"
    with pytest.warns(UserWarning, match="model.norm bn is computed as sync_bn on 3 replicas") as said:
        trained = run_strategy.with_norms_of_batch(config, SimpleNamespace(num_replicas_in_sync=3))
    assert len(said) == 1
    assert trained == replace(config, model=replace(config.model, norm="sync_bn"))


@pytest.mark.parametrize(("norm", "replicas"), [("bn", 1), ("gn", 2), ("sync_bn", 2), ("frozen_bn", 8)])
def test_other_norms_and_one_replica_stay_as_they_are(recwarn, norm, replicas):
    config = preset("shapes")
    config = replace(config, model=replace(config.model, norm=norm))
    assert run_strategy.with_norms_of_batch(config, SimpleNamespace(num_replicas_in_sync=replicas)) is config
    assert not recwarn.list


def test_a_run_may_go_on_with_another_number_of_devices_and_the_other_name_of_its_norm():
    config = preset("shapes")

    def of(norm, **options):
        return to_dict(replace(config, model=replace(config.model, norm=norm), **options))

    assert compare_configs(of("bn"), of("sync_bn", cpu_devices=3)) == []
    assert compare_configs(of("sync_bn"), of("bn")) == []
    assert compare_configs(of("bn"), of("gn")) == ["model.norm: 'bn' -> 'gn'"]
    assert compare_configs(of("frozen_bn"), of("bn")) == ["model.norm: 'frozen_bn' -> 'bn'"]
