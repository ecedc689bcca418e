"""Says that this machine has a GPU which TensorFlow does not use, and which command mends it."""

import importlib.metadata
import os
import platform
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""Variables that name the GPUs that a program may use. An empty one, or one that begins with -1, asks for the CPU."""
LIBRARIES = "nvidia-cudnn-cu12"
"""One of the packages that come with `tensorflow[and-cuda]`; it stands for all of them."""


@dataclass(frozen=True)
class TensorFlowBuild:
    """Holds what is known of the installed TensorFlow.

    Attributes:
        version: such as 2.21.0.
        cuda: the version of CUDA that it was built for; None: built without.
        gpus: how many GPUs it lists.
        package: the installed distribution, such as tensorflow or tensorflow-cpu.
        libraries: whether NVIDIA's libraries are installed as packages beside it.
        machine: the processor, such as x86_64.
    """

    version: str
    cuda: str | None
    gpus: int
    package: str = "tensorflow"
    libraries: bool = False
    machine: str = "x86_64"


def warn_of_idle_gpu(
    work: str,
    root: Path = Path("/"),
    environment: Mapping[str, str] | None = None,
    find_program: Callable[[str], str | None] = shutil.which,
    look_at_tensorflow: Callable[[], TensorFlowBuild] | None = None,
) -> None:
    """Warns if there is a GPU and TensorFlow lists none; TensorFlow's own line about it is hidden.

    TensorFlow is imported only where there is a GPU that the person did not hide.

    Args:
        work: what will run on the CPU, such as training.
        root: the folder in which /dev and /proc lie.
        environment: variables; None: those of this process.
        find_program: name of a program -> its path, or None.
        look_at_tensorflow: returns what TensorFlow is; None: `installed_tensorflow`.
    """
    environment = os.environ if environment is None else environment
    if asks_for_cpu(environment):
        return
    signs = gpu_signs(root, find_program)
    if not signs:
        return
    build = (look_at_tensorflow or installed_tensorflow)()
    if not build.gpus:
        warnings.warn(idle_gpu_message(signs, build, environment, work), stacklevel=2)


def asks_for_cpu(environment: Mapping[str, str]) -> bool:
    """Tells whether the variables hide all GPUs: TensorFlow takes the devices before the first one that is not there."""
    return any(environment[name].split(",")[0].strip() in ("", "-1") for name in HIDING if name in environment)


def gpu_signs(root: Path, find_program: Callable[[str], str | None]) -> dict[str, str]:
    """Returns the maker of each GPU, NVIDIA, WSL2 or AMD -> what shows that there is one, such as /dev/nvidia0."""
    signs = {}
    devices = [*sorted((root / "dev").glob("nvidia[0-9]*")), *sorted((root / "proc/driver/nvidia/gpus").glob("*"))]
    program = find_program("nvidia-smi")
    if devices:
        signs["NVIDIA"] = f"/{devices[0].relative_to(root)}"
    elif program:
        signs["NVIDIA"] = program
    elif (root / "dev/dxg").exists():
        signs["WSL2"] = "/dev/dxg"
    if (root / "dev/kfd").exists():
        signs["AMD"] = "/dev/kfd"
    return signs


def installed_tensorflow() -> TensorFlowBuild:
    """Returns what TensorFlow says of itself. No operation runs, so a strategy of several workers can still be made."""
    import tensorflow as tf

    facts = tf.sysconfig.get_build_info()
    packages = {name.lower() for name in importlib.metadata.packages_distributions().get("tensorflow", ())}
    return TensorFlowBuild(
        version=tf.__version__,
        cuda=str(facts.get("cuda_version", "of an unknown version")) if facts.get("is_cuda_build") else None,
        gpus=len(tf.config.list_physical_devices("GPU")),
        package=min(packages - {"tensorflow"}, default="tensorflow").replace("_", "-"),
        libraries=_is_installed(LIBRARIES),
        machine=platform.machine(),
    )


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def idle_gpu_message(
    signs: Mapping[str, str], build: TensorFlowBuild, environment: Mapping[str, str], work: str
) -> str:
    """Returns the warning: what is there, what TensorFlow is, what happens now, and what to do.

    Args:
        signs: of `gpu_signs`, at least one.
        build: of TensorFlow, which lists no GPU.
        environment: variables of the process.
        work: what runs on the CPU.
    """
    vendor, sign = next(iter(signs.items()))
    if vendor == "AMD":
        return (
            f"an AMD GPU is here ({sign}), but TensorFlow {build.version} was built without ROCm: {work} runs on the CPU. "
            "The packages of TensorFlow on PyPI use GPUs of NVIDIA only"
        )
    kind = f"for CUDA {build.cuda}" if build.cuda else "without CUDA"
    there = "an NVIDIA GPU is here" if vendor == "NVIDIA" else "a GPU of Windows is here"
    return (
        f"{there} ({sign}), but TensorFlow lists no GPU: {work} runs on the CPU, many times slower. "
        f"TensorFlow {build.version} was built {kind}. {_remedy(vendor, build, environment)} "
        "CUDA_VISIBLE_DEVICES=-1 asks for the CPU and hides this line"
    )


def _remedy(vendor: str, build: TensorFlowBuild, environment: Mapping[str, str]) -> str:
    install = f'pip install "tensorflow[and-cuda]=={build.version}"'
    if vendor == "WSL2":
        return (
            "If it is one of NVIDIA, install NVIDIA's driver in Windows until nvidia-smi lists the GPU here, and run: "
            f"{install}."
        )
    if build.cuda is None and build.machine != "x86_64":
        return f"PyPI has TensorFlow with CUDA for Linux on x86_64 alone, this is {build.machine}: use NVIDIA's container of TensorFlow."
    if build.package != "tensorflow":
        return f"To use the GPU, run: pip uninstall -y tensorflow {build.package} && {install}."
    if build.cuda is None:
        return f"To use the GPU, take the build of PyPI: pip uninstall -y tensorflow && {install}."
    if not build.libraries:
        return f"NVIDIA's libraries are not installed beside it. To use the GPU, run: {install}."
    if named := environment.get("CUDA_VISIBLE_DEVICES"):
        return f"CUDA_VISIBLE_DEVICES is {named!r}: it must name GPUs that nvidia-smi -L lists, or be unset."
    reason = "TF_CPP_MIN_LOG_LEVEL=0 python -c \"import tensorflow as tf; tf.config.list_physical_devices('GPU')\""
    return f"NVIDIA's libraries are installed, so look at the driver: nvidia-smi must list the GPU. TensorFlow's own reason: {reason}."
