"""Compares Keras' backends on one processor: a step of `fit` and an inference of R50-FPN, in seconds.

    python benchmarks/backends.py                        # those of CELLS whose backend is installed
    python benchmarks/backends.py --cells jax torch --size 512 --rounds 5

Each cell of CELLS is a process of its own, which makes the detector of `kfpn.build_detector()`, and `kfpn.trainable` of it. They take
turns, one at a time: a training step of two images with 512 RoIs each, then a `predict` of one image with 1000 RoIs. Medians and the
best of the rounds are printed. All have the same random images and boxes. What compiling takes is printed beside it, and is not counted.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CELLS: dict[str, tuple[str, str, dict[str, bool]]] = {
    "tensorflow": ("tensorflow", "float32", {}),
    "tensorflow-bfloat16": ("tensorflow", "mixed_bfloat16", {"jit_compile": False}),
    "jax": ("jax", "float32", {}),
    "torch": ("torch", "float32", {}),
    "torch-bfloat16": ("torch", "mixed_bfloat16", {}),
}
"""Name -> (backend, policy of the precision, options of `compile`). Without options Keras decides."""
BATCH = 2
OBJECTS = 20
CLASSES = 80


def batch(size: int, seed: int = 0) -> dict[str, Any]:
    """Returns random images with boxes, as `kfpn.trainable` takes them."""
    import numpy as np

    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 0.6, (BATCH, OBJECTS, 2))
    boxes = np.concatenate([start, start + rng.uniform(0.05, 0.4, (BATCH, OBJECTS, 2))], -1) * size
    return {
        "images": rng.integers(0, 256, (BATCH, size, size, 3)).astype("uint8"),
        "image_sizes": np.full((BATCH, 2), size, "int32"),
        "gt_boxes": boxes.astype("float32"),
        "gt_labels": rng.integers(0, CLASSES, (BATCH, OBJECTS)).astype("int32"),
        "gt_crowd": np.zeros((BATCH, OBJECTS), bool),
    }


def work(cell: str, size: int) -> None:
    """Does what each line of the standard input asks for, and answers with the seconds that it took."""
    import keras

    import kfpn

    _, policy, options = CELLS[cell]
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    detector = kfpn.build_detector(num_classes=CLASSES)
    model = kfpn.trainable(detector)
    model.compile(keras.optimizers.SGD(1e-4, momentum=0.9, global_clipnorm=5.0), **options)
    inputs = batch(size)
    image = inputs["images"][:1].astype("float32")
    tasks = {
        "step": lambda: float(model.train_on_batch(inputs, return_dict=True)["loss"]),
        "inference": lambda: float(detector.predict(image, verbose=0)["scores"].sum()),
    }
    for line in sys.stdin:
        begun = time.perf_counter()
        value = tasks[line.strip()]()
        print(json.dumps({"seconds": time.perf_counter() - begun, "value": value}), flush=True)


def start(cell: str, size: int) -> subprocess.Popen[str]:
    """Starts the process of a cell."""
    words = [sys.executable, str(Path(__file__).resolve()), "--work", cell, "--size", str(size)]
    return subprocess.Popen(
        words,
        env={**os.environ, "KERAS_BACKEND": CELLS[cell][0]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(process: subprocess.Popen[str], cell: str, task: str) -> float:
    """Lets a process do a task, and returns its seconds.

    Raises:
        SystemExit: if the process ends, or a loss or score is not finite.
    """
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(f"{task}\n")
        process.stdin.flush()
    except BrokenPipeError:
        raise SystemExit(f"the process of {cell} has ended") from None
    for line in process.stdout:
        if line.startswith("{"):
            answer = json.loads(line)
            if answer["value"] - answer["value"] != 0.0:
                raise SystemExit(f"{cell} gives {answer['value']} in a {task}")
            return float(answer["seconds"])
    raise SystemExit(f"the process of {cell} ended in a {task}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=CELLS, help="which to compare; without it all that are installed")
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", choices=CELLS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.size)
        return
    cells = options.cells or [cell for cell in CELLS if importlib.util.find_spec(CELLS[cell][0])]
    processes = {cell: start(cell, options.size) for cell in cells}
    tasks = ("step", "inference")
    first = {(cell, task): ask(processes[cell], cell, task) for cell in cells for task in tasks}
    seconds: dict[tuple[str, str], list[float]] = {timed: [] for timed in first}
    for number in range(options.rounds + 1):  # the round 0 is a second warm-up
        for cell, task in first:
            took = ask(processes[cell], cell, task)
            if number:
                seconds[cell, task].append(took)
    print(
        f"R50-FPN, {options.size} x {options.size}; seconds, median (best) of {options.rounds} rounds; the first call in brackets"
    )
    print("| | step, batch 2 | inference |\n|---|---|---|")
    for cell in cells:
        words = (
            f"{median(seconds[cell, task]):.2f} ({min(seconds[cell, task]):.2f}) [{first[cell, task]:.0f}]"
            for task in tasks
        )
        print(f"| {cell} | {' | '.join(words)} |")
    for process in processes.values():
        assert process.stdin
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main()
