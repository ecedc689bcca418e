"""Finds what limits training: images/s of the input pipeline alone, of the training step alone, and of both together.

    python benchmarks/scaling.py                                # R50-FPN at 512 x 512 on made JPEG files; 1 and 2 replicas
    python benchmarks/scaling.py --data coco:train.json,images  # on your own data, as `kfpn train --data` reads it
    python benchmarks/scaling.py --memory                       # does the pipeline's memory grow over 10,000 images?

Replicas are GPUs: one, and all of them. Where there is no GPU they are logical CPUs: one and two. Each number of replicas is
measured in a process of its own. Pipeline, step and both are measured in turns there, because the speed of a shared machine
changes with time. The table holds the medians of the turns.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from scaling_data import SIDE, build_config, describe_data, open_data, strategy_of
from scaling_memory import memory_series, memory_table, plot_memory
from tqdm import tqdm

from kfpn.config.presets import PRESETS
from kfpn.config.run import Precision

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "scaling_memory.png"
PARTS = ("pipeline", "step", "both")
WANTED = 3.0
"""The pipeline should make this many times the images/s of the training step."""


def feed(source: Any, config: Any, strategy: Any, start_step: int = 0) -> Iterator[Any]:
    """Returns the batches as training takes them, without end."""
    from kfpn.data.pipeline import named_errors, train_batches
    from kfpn.training.distribution.replica_batches import distributed_batches

    return named_errors(distributed_batches(strategy, lambda share: train_batches(source, config, start_step, share)))


def build_training(config: Any, strategy: Any) -> tuple[Callable[[Any], dict[str, Any]], list[Any]]:
    """Returns the training step of a fresh detector, and the variables that it changes."""
    import keras

    from kfpn.modeling.submodels import build_submodels
    from kfpn.training.optimizer import Optimizer
    from kfpn.training.step import build_train_step

    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    with strategy.scope():
        submodels = build_submodels(config.model)
        optimizer = Optimizer(config, submodels.weights_model.trainable_variables)
    step = build_train_step(submodels, config, optimizer, strategy)
    return step, [*submodels.weights_model.variables, *optimizer.variables]


def rate(call: Callable[[], Any], batch_size: int, seconds: float) -> float:
    """Returns the images/s of calls that take one batch each.

    Args:
        call: returns the step's tensors, or None. The device works on one step while the next one is prepared, as in
            training, and never has more than one step waiting.
        batch_size: images of a call.
        seconds: wall clock; it measures so long at least, and at least two calls.
    """
    waited = _wait(call())
    start, count = time.perf_counter(), 0
    while count < 2 or time.perf_counter() - start < seconds:
        waited, pending = call(), waited
        _wait(pending)
        count += 1
    _wait(waited)
    return count * batch_size / (time.perf_counter() - start)


def _wait(result: Any) -> Any:
    if result is not None:
        float(result["loss"])
    return None


def measure(
    source: Any, config: Any, strategy: Any, step: Callable[[Any], Any], turns: int, seconds: float
) -> dict[str, list[float]]:
    """Returns the images/s of the pipeline, of the step and of both, one figure for each turn.

    Args:
        source: the data.
        config: `batch_size` is the global batch.
        strategy: of `step`.
        step: batch -> dict with `loss`.
        turns: how often all three are measured.
        seconds: how long each is measured in each turn, at least.
    """
    same = next(feed(source, config, strategy))
    _wait(step(same))  # compiles
    figures: dict[str, list[float]] = {part: [] for part in PARTS}
    for turn in tqdm(range(turns), desc=f"{strategy.num_replicas_in_sync} replica(s)", unit="turn"):
        # A new pipeline each time: batches that it made while another part was measured must not count.
        batches = feed(source, config, strategy, 1000 * turn)
        for _ in range(8):
            next(batches)
        figures["pipeline"].append(rate(lambda b=batches: _nothing(next(b)), config.batch_size, seconds))
        del batches
        figures["step"].append(rate(lambda: step(same), config.batch_size, seconds))
        batches = feed(source, config, strategy, 1000 * turn)
        figures["both"].append(rate(lambda b=batches: step(next(b)), config.batch_size, seconds))
        del batches
    return figures


def _nothing(_: Any) -> None:
    return None


def limiting(pipeline: float, step: float) -> str:
    """Returns the name of the part with fewer images/s."""
    return "input pipeline" if pipeline < step else "training step"


def table(rows: Sequence[tuple[int, dict[str, list[float]]]]) -> str:
    """Returns the table of what was measured, and a line for each row that says which part limits it.

    Args:
        rows: (number of replicas, figures of `measure`).
    """
    head = ("replicas", "pipeline", "step", "both", "pipeline / step", "both / slower", "limits")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    words = []
    for replicas, figures in rows:
        turns = {part: np.array(figures[part]) for part in PARTS}
        pipeline, step, both = (float(np.median(turns[part])) for part in PARTS)
        ratio = float(np.median(turns["pipeline"] / turns["step"]))
        kept = float(np.median(turns["both"] / np.minimum(turns["pipeline"], turns["step"])))
        cells = [f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in (pipeline, step, both, ratio, kept)]
        lines.append(f"| {replicas} | {' | '.join(cells)} | {limiting(pipeline, step)} |")
        enough = "enough" if ratio >= WANTED else "too little"
        words.append(
            f"{replicas} replica(s): the {limiting(pipeline, step)} limits; the pipeline makes {cells[3]} times the images/s of "
            f"the step ({WANTED:g} wanted: {enough})"
        )
    one = rows[0]
    for replicas, figures in rows[1:]:
        factor = np.median(figures["both"]) / np.median(one[1]["both"])
        words.append(
            f"{replicas} replicas train {factor:.2f} times the images/s of {one[0]} (measured one after the other)"
        )
    return "\n".join([*lines, "", *words])


def default_replicas() -> list[int]:
    """Returns the numbers of replicas to measure: 1 and all GPUs, or 1 and 2 where there is no GPU."""
    import tensorflow as tf

    return sorted({1, len(tf.config.list_physical_devices("GPU")) or 2})


def throughput(options: argparse.Namespace, folder: Path) -> None:
    """Measures each number of replicas in a process of its own, and prints the table."""
    counts = options.replicas or default_replicas()
    batch_size = options.batch or 2 * (max(counts) if options.replicas is None and max(counts) > 2 else 1)
    for replicas in counts:
        if replicas < 1 or batch_size % replicas:
            raise ValueError(f"batch must be a multiple of the number of replicas ({replicas}), got {batch_size}")
    rows = []
    for replicas in counts:
        command = [sys.executable, __file__, *sys.argv[1:], "--batch", str(batch_size)]
        command += ["--child", str(replicas), "--folder", str(folder)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append((replicas, json.loads(output.splitlines()[-1])))
    print(f"{options.preset}, {options.size} x {options.size}, global batch {batch_size}, {options.precision}", end="")
    print(f"{'' if options.no_jit else ', XLA'}; {len(os.sched_getaffinity(0))} cores; images/s")
    print(f"{rows[0][1]['data']}\n\n{table(rows)}")


def child(options: argparse.Namespace, replicas: int, folder: Path) -> None:
    """Measures one number of replicas and prints the figures as JSON."""
    strategy = strategy_of(replicas)
    source, config = _prepared(options, folder)
    step, _ = build_training(config, strategy)
    figures: dict[str, Any] = measure(source, config, strategy, step, options.turns, options.seconds)
    print(json.dumps({**figures, "data": describe_data(source)}))


def memory(options: argparse.Namespace, folder: Path) -> None:
    """Runs the pipeline alone, prints the table of its memory and draws the curve."""
    strategy = strategy_of(1)
    source, config = _prepared(options, folder)
    warm_up = options.warm_up if options.warm_up is not None else options.images // 10
    start = time.perf_counter()
    series = memory_series(feed(source, config, strategy), config.batch_size, options.images, warm_up)
    speed = (options.images + warm_up) / (time.perf_counter() - start)
    print(
        f"batches of {config.batch_size} at {options.size} x {options.size}; {describe_data(source)}; {speed:.1f} images/s"
    )
    print(f"\n{memory_table(series)}")
    if options.picture:
        plot_memory(series, Path(options.picture))


def _prepared(options: argparse.Namespace, folder: Path) -> tuple[Any, Any]:
    source = open_data(options.data, folder, options.files, options.side)
    classes = len(source.class_names)
    config = build_config(
        options.preset, options.size, options.batch or 2, classes, options.precision, not options.no_jit
    )
    return source, config


def main() -> None:
    """Parses the options and does what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        help="as for kfpn train: coco:ANNOTATIONS.json,IMAGES_DIR | voc:DIR | ...; default: files that the script makes",
    )
    parser.add_argument("--files", type=int, default=64, help="how many files the script makes")
    parser.add_argument("--side", type=int, default=SIDE, help="side of these files, pixels")
    parser.add_argument("--preset", choices=list(PRESETS), default="coco")
    parser.add_argument("--size", type=int, default=512, help="side of the square canvas, pixels")
    parser.add_argument(
        "--batch", type=int, help="images a step, over all replicas; default: 2, or 2 for each of several GPUs"
    )
    parser.add_argument("--replicas", type=int, nargs="+", help="default: 1 and all GPUs, or 1 and 2 without one")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    parser.add_argument("--no-jit", action="store_true", help="TensorFlow's kernels instead of XLA")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="how long each part is measured in each turn, at least"
    )
    parser.add_argument("--memory", action="store_true", help="measure the pipeline's memory instead")
    parser.add_argument("--images", type=int, default=10_000, help="with --memory: how many images the pipeline makes")
    parser.add_argument("--warm-up", type=int, help="images before the first that counts; default: a tenth of --images")
    parser.add_argument("--picture", default=str(PICTURE), help='with --memory: the figure to write; "": none')
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        try:
            if options.child:
                child(options, options.child, folder)
            else:
                (memory if options.memory else throughput)(options, folder)
        except ValueError as error:
            sys.exit(f"error: {error}")
        except subprocess.CalledProcessError as error:  # the process itself has printed the reason
            sys.exit(error.returncode)


if __name__ == "__main__":
    main()
