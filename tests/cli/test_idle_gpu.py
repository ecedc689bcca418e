import tomllib
from pathlib import Path

import pytest

from kfpn.cli import commands, idle_gpu
from kfpn.cli.idle_gpu import TensorFlowBuild, asks_for_cpu, gpu_signs, idle_gpu_message, warn_of_idle_gpu
from kfpn.cli.options import Benchmark, Evaluate, ListPretrained, Predict
from kfpn.config.run import Config

ROOT = Path(__file__).resolve().parents[2]
CUDA = TensorFlowBuild("2.21.0", "12.5.1", gpus=0)


def machine(folder, *devices):
    """Makes a root folder with these devices, and returns it."""
    for device in devices:
        (folder / device).parent.mkdir(parents=True, exist_ok=True)
        (folder / device).touch()
    return folder


def nowhere(_program):
    return None


def on_path(program):
    return f"/usr/bin/{program}"


def warned(recwarn, root, environment=None, find_program=nowhere, build=CUDA):
    warn_of_idle_gpu("training", root, environment or {}, find_program, lambda: build)
    return [str(warning.message) for warning in recwarn]


@pytest.mark.parametrize(
    ("devices", "find_program", "signs"),
    [
        ((), nowhere, {}),
        (("dev/nvidiactl", "dev/nvidia-uvm", "dev/dri/card0"), nowhere, {}),
        (("dev/nvidia0", "dev/nvidia1"), nowhere, {"NVIDIA": "/dev/nvidia0"}),
        (("dev/nvidia3",), on_path, {"NVIDIA": "/dev/nvidia3"}),
        (("proc/driver/nvidia/gpus/0000:17:00.0",), nowhere, {"NVIDIA": "/proc/driver/nvidia/gpus/0000:17:00.0"}),
        ((), on_path, {"NVIDIA": "/usr/bin/nvidia-smi"}),
        (("dev/dxg",), nowhere, {"WSL2": "/dev/dxg"}),
        (("dev/dxg",), on_path, {"NVIDIA": "/usr/bin/nvidia-smi"}),
        (("dev/kfd",), nowhere, {"AMD": "/dev/kfd"}),
        (("dev/kfd", "dev/nvidia0"), nowhere, {"NVIDIA": "/dev/nvidia0", "AMD": "/dev/kfd"}),
    ],
)
def test_a_gpu_is_seen_by_its_device_its_driver_or_its_program(tmp_path, devices, find_program, signs):
    assert gpu_signs(machine(tmp_path, *devices), find_program) == signs


@pytest.mark.parametrize(
    ("environment", "asks"),
    [
        ({}, False),
        ({"CUDA_VISIBLE_DEVICES": ""}, True),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, True),
        ({"CUDA_VISIBLE_DEVICES": " -1 "}, True),
        ({"CUDA_VISIBLE_DEVICES": "-1,0"}, True),
        ({"CUDA_VISIBLE_DEVICES": "0,-1"}, False),
        ({"CUDA_VISIBLE_DEVICES": "0"}, False),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937"}, False),
        ({"HIP_VISIBLE_DEVICES": "-1"}, True),
        ({"ROCR_VISIBLE_DEVICES": ""}, True),
    ],
)
def test_who_hides_all_gpus_asks_for_the_cpu(tmp_path, recwarn, environment, asks):
    assert asks_for_cpu(environment) is asks
    assert len(warned(recwarn, machine(tmp_path, "dev/nvidia0"), environment)) == (0 if asks else 1)


def test_a_gpu_that_tensorflow_lists_needs_no_words(tmp_path, recwarn):
    assert warned(recwarn, machine(tmp_path, "dev/nvidia0"), build=TensorFlowBuild("2.21.0", "12.5.1", gpus=1)) == []


def test_without_a_gpu_tensorflow_is_not_asked(tmp_path, recwarn):
    warn_of_idle_gpu("training", tmp_path, {}, nowhere, look_at_tensorflow=lambda: pytest.fail("it was asked"))
    assert not recwarn.list


def test_an_idle_gpu_is_said_with_the_build_and_the_command_that_mends_it(tmp_path, recwarn):
    assert warned(recwarn, machine(tmp_path, "dev/nvidia0")) == [
        "an NVIDIA GPU is here (/dev/nvidia0), but TensorFlow lists no GPU: training runs on the CPU, many times slower. "
        "TensorFlow 2.21.0 was built for CUDA 12.5.1. NVIDIA's libraries are not installed beside it. To use the GPU, run: "
        'pip install "tensorflow[and-cuda]==2.21.0". CUDA_VISIBLE_DEVICES=-1 asks for the CPU and hides this line'
    ]


@pytest.mark.parametrize(
    ("build", "environment", "remedy"),
    [
        (TensorFlowBuild("2.19.0", None, 0, "tensorflow-cpu"), {}, 'pip uninstall -y tensorflow tensorflow-cpu && pip install "tensorflow[and-cuda]==2.19.0"'),
        (TensorFlowBuild("2.19.0", None, 0), {}, "take the build of PyPI: pip uninstall -y tensorflow && pip install"),
        (TensorFlowBuild("2.21.0", None, 0, machine="aarch64"), {}, "this is aarch64: use NVIDIA's container"),
        (TensorFlowBuild("2.21.0", "12.5.1", 0, libraries=True), {}, "look at the driver: nvidia-smi must list the GPU"),
        (TensorFlowBuild("2.21.0", "12.5.1", 0, libraries=True), {"CUDA_VISIBLE_DEVICES": "5"}, "CUDA_VISIBLE_DEVICES is '5': it must name GPUs that nvidia-smi -L lists"),
    ],
)  # fmt: skip
def test_the_remedy_fits_what_is_missing(build, environment, remedy):
    assert remedy in idle_gpu_message({"NVIDIA": "/dev/nvidia0"}, build, environment, "training")


def test_wsl2_and_amd_have_lines_of_their_own():
    assert "install NVIDIA's driver in Windows" in idle_gpu_message({"WSL2": "/dev/dxg"}, CUDA, {}, "prediction")
    amd = idle_gpu_message({"AMD": "/dev/kfd"}, CUDA, {}, "prediction")
    assert "an AMD GPU is here (/dev/kfd)" in amd
    assert "without ROCm: prediction runs on the CPU" in amd


@pytest.mark.parametrize(
    ("command", "work"),
    [
        (Config(), ["training"]),
        (Config(cpu_devices=2), []),
        (Evaluate("run"), ["evaluation"]),
        (Predict(("a.jpg",), "run", "out"), ["prediction"]),
        (Benchmark(("run",)), ["every measurement"]),
        (ListPretrained(), []),
    ],
)
def test_commands_that_compute_look_for_an_idle_gpu_once(monkeypatch, command, work):
    asked = []
    monkeypatch.setattr(commands, "warn_of_idle_gpu", asked.append)
    monkeypatch.setitem(commands._RUN, type(command), lambda _command: 0)
    assert commands.run(command) == 0
    assert asked == work


def test_the_installed_tensorflow_is_described():
    import tensorflow as tf

    build = idle_gpu.installed_tensorflow()
    assert build.version == tf.__version__
    assert build.gpus == len(tf.config.list_physical_devices("GPU"))
    assert (build.cuda is not None) == tf.sysconfig.get_build_info()["is_cuda_build"]
    assert build.package.startswith("tensorflow")


def test_the_extra_gpu_has_the_versions_of_the_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (plain,) = [one for one in project["dependencies"] if one.startswith("tensorflow>")]
    assert project["optional-dependencies"]["gpu"] == [plain.replace("tensorflow", "tensorflow[and-cuda]", 1)]
