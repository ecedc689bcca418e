"""Times work directories, SavedModels and ONNX files in turns on the same image, for `kfpn benchmark`."""

import contextlib
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kfpn.config.checks import require_local
from kfpn.export.asset_files import precision_of_saved_model
from kfpn.export.benchmark.model_precision import precision_of_onnx, precisions_of
from kfpn.export.measure import conv_peak, gigaflops

KERAS_ROWS = {"float32": "Keras (XLA)", "bfloat16": "Keras (no XLA)"}
"""Precision of a work directory -> key of `RUNNERS`: XLA has no kernels for bfloat16 on CPUs, TensorFlow has."""


@dataclass
class Contestant:
    """One model in one runtime.

    Attributes:
        name: its name in the table.
        runtime: key of `RUNNERS`.
        precision: "float32", "bfloat16" or "int8", what its convolutions and matrix products are computed in.
        path: work directory, version of a SavedModel, or ONNX file.
        seconds: duration of each run so far.
        memory: peak of its process, bytes.
        fault: the reason why it could not run; else empty.
        gflop: of one image; None: not known.
    """

    name: str
    runtime: str
    path: Path
    precision: str = "float32"
    seconds: list[float] = field(default_factory=list)
    memory: int = 0
    fault: str = ""
    gflop: float | None = None


def contestants(targets: Sequence[str], precisions: Sequence[str] = ("float32",)) -> list[Contestant]:
    """Returns the contestants of the targets; an ONNX file runs in ONNX Runtime and in OpenVINO, where they are installed.

    Args:
        targets: work directories, SavedModels and ONNX files.
        precisions: those that work directories and OpenVINO compute in, "float32", "bfloat16" or both. SavedModels and files of eight
            bits have their own. ONNX Runtime computes a file as it is: on x86 it has no setting for bfloat16.

    Raises:
        ValueError: for a target that is none of the three kinds; it is named.
    """
    entrants = []
    for target in targets:
        require_local("targets", target)
        path = Path(target)
        versions = sorted(
            (p for p in path.glob("*/saved_model.pb") if p.parent.name.isdigit()), key=lambda p: int(p.parent.name)
        )
        if (path / "config.json").exists():
            entrants += [Contestant(target, KERAS_ROWS[precision], path, precision) for precision in precisions]
        elif (path / "saved_model.pb").exists() or versions:
            version = path if (path / "saved_model.pb").exists() else versions[-1].parent
            entrants.append(Contestant(target, "SavedModel", version, precision_of_saved_model(version)))
        elif path.is_file() and path.suffix == ".onnx":
            entrants += _of_onnx_file(target, precisions)
        else:
            raise ValueError(
                f"{target} must be a work directory, a SavedModel's folder or an .onnx file, got something else"
            )
    return entrants


def _of_onnx_file(target: str, precisions: Sequence[str]) -> Iterator[Contestant]:
    own = precision_of_onnx(Path(target))
    rows = [("ONNX Runtime", "onnxruntime", own)]
    rows += [("OpenVINO", "openvino", precision) for precision in ((own,) if own == "int8" else precisions)]
    for runtime, module, precision in rows:
        missing = "" if importlib.util.find_spec(module) else f"{module} is not installed: pip install {module}"
        yield Contestant(target, runtime, Path(target), precision, fault=missing)


@contextlib.contextmanager
def _process(contestant: Contestant, image: Path) -> Iterator[subprocess.Popen]:
    command = [
        sys.executable,
        "-m",
        "kfpn.export.benchmark.runners",
        contestant.runtime,
        str(contestant.path),
        str(image),
        contestant.precision,
    ]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            errors.seek(0)
            lines = [line.strip() for line in errors if line.strip()]
            if not contestant.memory and not contestant.fault:
                contestant.fault = lines[-1] if lines else f"its process ended with {process.returncode}"


def _ask(process: subprocess.Popen, line: str) -> str:
    try:
        process.stdin.write(line + "\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        return process.stdout.readline().strip()  # type: ignore[union-attr]
    except BrokenPipeError:
        return ""


def race(entrants: list[Contestant], image: np.ndarray, runs: int, progress: bool = True) -> None:
    """Runs the contestants in turns, each in a process of its own.

    Args:
        entrants: the contestants; their seconds, memory and faults are filled in.
        image: (H, W, 3) uint8 RGB.
        runs: number of rounds, after two that warm up and compile.
        progress: show a bar.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        file = Path(folder) / "image.npy"
        np.save(file, image)
        processes = {id(one): stack.enter_context(_process(one, file)) for one in entrants if not one.fault}
        bar = tqdm(total=(runs + 2) * len(processes), desc="benchmark", unit="run", disable=not progress, leave=False)
        for turn in range(runs + 2):
            for one in entrants:
                if id(one) in processes:
                    answer = _ask(processes[id(one)], "run")
                    if not answer:
                        del processes[id(one)]
                        continue
                    bar.update()
                    if turn >= 2:
                        one.seconds.append(float(answer))
        for one in entrants:
            if id(one) in processes:
                one.memory = int(_ask(processes[id(one)], "end") or 0)


def gigaflops_of(workdir: Path, size: tuple[int, int]) -> float:
    """Counts the GFLOP of one inference by a work directory's detector on an image of a size."""
    import tensorflow as tf

    from kfpn.runs.load import load_network

    model = load_network(workdir)
    images = tf.zeros((1, *size, 3))
    return gigaflops(tf.function(lambda: model(images, training=False)).get_concrete_function())


def benchmark_table(entrants: Sequence[Contestant], peak: float) -> str:
    """Lays out the figures as Markdown.

    Args:
        entrants: after `race`.
        peak: GFLOP/s of this machine's convolutions in float32; other precisions may be above it.
    """
    lines = [
        "| model | runtime | precision | median | least | GFLOP/s | of peak | memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in entrants:
        if not one.seconds:
            lines.append(f"| {one.name} | {one.runtime} | {one.precision} | could not run: {one.fault} | | | | |")
            continue
        middle, least = statistics.median(one.seconds), min(one.seconds)
        speed = f"{one.gflop / middle:.0f} | {one.gflop / middle / peak:.2f}" if one.gflop else "- | -"
        lines.append(
            f"| {one.name} | {one.runtime} | {one.precision} | {middle * 1e3:.0f} ms | {least * 1e3:.0f} ms | {speed} "
            f"| {one.memory / 1e9:.2f} GB |"
        )
    return "\n".join(lines)


def benchmark(
    targets: Sequence[str], size: tuple[int, int], runs: int, image: str | None = None, precision: str = "auto"
) -> dict[str, Any]:
    """Times models on the same image, in turns, and measures the machine's convolutions before and after.

    Args:
        targets: work directories, SavedModels (the newest version of a model's folder) and ONNX files. An export stands
            behind the work directory it was made from: the operations of that detector count for it.
        size: height and width of the image in pixels, multiples of 32. A SavedModel resizes the image by its own rule.
        runs: number of runs of each.
        image: an image file; None: noise.
        precision: of work directories and OpenVINO: "float32", "bfloat16", or "auto", see `precisions_of`.

    Returns:
        A dict of contestants, a list, and peak, the GFLOP/s of this machine's convolutions.

    Raises:
        ValueError: for a target that is no model, or an image that cannot be read.
    """
    entrants = contestants(targets, precisions_of(precision))
    pixels = _benchmark_image(image, size)
    gflop, counted = None, None
    for one in entrants:
        if one.runtime in KERAS_ROWS.values() and one.path != counted:
            gflop, counted = gigaflops_of(one.path, size), one.path
        one.gflop = gflop
    peak = conv_peak()
    race(entrants, pixels, runs, progress=sys.stderr.isatty())
    return {"contestants": entrants, "peak": max(peak, conv_peak())}


def _benchmark_image(path: str | None, size: tuple[int, int]) -> np.ndarray:
    if path is None:
        return np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    from kfpn.data.augment import resize_image
    from kfpn.data.image import load_picture

    return resize_image(load_picture(path, path), size)
