"""What a run trains on: cores by the container's share, and the same facts on all workers."""

import dataclasses
from types import SimpleNamespace

import pytest

from kfpn.config.auto_facts import MachineFacts
from kfpn.config.run import Config
from kfpn.training import machine
from kfpn.training.machine import machine_facts, usable_cores


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_containers_share_is_the_number_of_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_cores(tmp_path) == 8
    for text, cores in (
        ("max 100000", 8),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("nonsense", 8),
    ):
        write(tmp_path / "cpu.max", text)
        assert usable_cores(tmp_path) == cores
    (tmp_path / "cpu.max").unlink()
    write(tmp_path / "cpu/cpu.cfs_period_us", "100000")
    for text, cores in (("300000", 3), ("-1", 8)):
        write(tmp_path / "cpu/cpu.cfs_quota_us", text)
        assert usable_cores(tmp_path) == cores


def test_devices_that_the_cpu_is_split_into_are_no_gpus():
    facts = machine_facts(Config(cpu_devices=4))
    assert (facts.gpus, facts.gpu_memory) == (0, None)


class Workers:
    """Stands in for a cluster of two: what this worker passes is gathered with what the other one passed at the same point."""

    several = True

    def __init__(self, other):
        self.other = [other.gpu_memory or 0, other.gpus, other.cores, int(other.fast_bfloat16)]

    def gather(self, value):
        return [value, self.other.pop(0)]


@pytest.mark.parametrize(
    ("one", "two", "together"),
    [
        (MachineFacts(8, 2, 80, True), MachineFacts(4, 1, 40, False), MachineFacts(4, 3, 40, False)),
        (MachineFacts(8, 1, 80, True), MachineFacts(4, 0, None, True), MachineFacts(4, 0, None, True)),
        (MachineFacts(2), MachineFacts(2), MachineFacts(2)),
    ],
)
def test_workers_agree_on_the_least_that_one_of_them_has_and_on_all_gpus(monkeypatch, one, two, together):
    def facts_of(own, other):
        monkeypatch.setattr(machine, "_own_gpus", lambda config: dataclasses.replace(own, cores=1))
        monkeypatch.setattr(machine, "usable_cores", lambda: own.cores)
        return machine_facts(Config(), Workers(other))

    assert facts_of(one, two) == facts_of(two, one) == together


def test_a_process_that_is_alone_gathers_nothing():
    alone = SimpleNamespace(several=False)
    assert machine_facts(Config(), alone) == machine_facts(Config())
