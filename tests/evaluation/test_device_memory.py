import ctypes

import pytest
import tensorflow as tf

from kfpn.data.memory_limit import available_memory
from kfpn.evaluation import device_memory
from kfpn.evaluation.device_memory import default_device

NOTHING = {"memory.max": "max\n"}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "left"),
    [
        (NOTHING, 1000 * 1024),
        ({"memory.max": "500000", "memory.current": "450000", "memory.stat": "anon 9\ninactive_file 100000\n"}, 150000),
        (
            {
                "memory/memory.limit_in_bytes": "500000",
                "memory/memory.usage_in_bytes": "450000",
                "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 20000\n",
            },
            70000,
        ),
        ({"memory.max": "500000", "memory.current": "600000", "memory.stat": "anon 9\n"}, 0),
    ],
)
def test_the_memory_that_is_left_heeds_the_machine_and_the_container(tmp_path, files, left):
    write(tmp_path, {**files, "meminfo": "MemTotal: 4000 kB\nMemAvailable: 1000 kB\n"})
    assert available_memory(tmp_path, tmp_path / "meminfo") == left


def test_without_linux_the_whole_memory_counts_and_a_cpu_has_that_of_the_machine(tmp_path):
    assert available_memory(tmp_path, tmp_path / "none") > 2**27
    assert device_memory.device_memory("/job:localhost/replica:0/task:0/device:CPU:2") > 2**27
    assert default_device() == "CPU:0"


class Driver:
    """Stands in for NVIDIA's driver with one GPU of 16 GB."""

    def cuInit(self, flags):
        return 0

    def cuDeviceGet(self, device, ordinal):
        return 0 if ordinal == 0 else 101

    def cuDeviceTotalMem_v2(self, total, device):
        total._obj.value = 16 * 10**9
        return 0


def test_a_gpu_has_what_its_driver_or_its_limit_says_less_what_is_taken(monkeypatch):
    gpus = [
        tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU"),
        tf.config.PhysicalDevice("/physical_device:GPU:1", "GPU"),
    ]
    limits = {"/physical_device:GPU:1": [tf.config.LogicalDeviceConfiguration(memory_limit=2048)] * 2}
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.config, "get_logical_device_configuration", lambda gpu: limits.get(gpu.name))
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda name: {"current": 10**9, "peak": 0})
    assert device_memory.device_memory("GPU:0") == 15 * 10**9
    assert device_memory.device_memory("/device:GPU:2") == 2**31 - 10**9
    assert device_memory.device_memory("GPU:3") is None


def test_without_a_driver_the_memory_of_a_gpu_is_not_known(monkeypatch):
    def none(name):
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", none)
    monkeypatch.setattr(
        tf.config, "get_visible_devices", lambda kind: [tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")]
    )
    monkeypatch.setattr(tf.config, "get_logical_device_configuration", lambda gpu: None)
    assert device_memory.device_memory("GPU:0") is None
