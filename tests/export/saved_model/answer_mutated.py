"""Sends mutated image files to a SavedModel, in a process that may die of them.

    python answer_mutated.py MODEL_DIR COUNT SEED FILE...

Prints one line of JSON: how many files were answered and how many were refused. Exit code 1: an answer was not right.
"""

import collections
import json
import re
import resource
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from hostile_files import mutated

BATCH = 4


def main(model, count, seed, *paths):
    detect = tf.saved_model.load(model).signatures["serving_default"]
    files, rng = [Path(path).read_bytes() for path in paths], np.random.default_rng(int(seed))
    outcomes = collections.Counter()
    for start in range(0, int(count), BATCH):
        batch = [mutated(rng, files[rng.integers(0, len(files))]) for _ in range(BATCH - 1)] + [files[0]]
        outputs = {name: value.numpy() for name, value in detect(image_bytes=tf.constant(batch)).items()}
        errors = [error.decode() for error in outputs.pop("errors")]
        if errors[-1] or not outputs["num_detections"][-1]:
            raise SystemExit(f"the good file at {start} was not answered: {errors[-1]}")
        for i, error in enumerate(errors):
            row = {name: value[i] for name, value in outputs.items()}
            if error:
                fine = not any(value.any() for value in row.values()) and f" at index {i}" in error
            else:
                fine = all(np.isfinite(value).all() for value in row.values())
            if not fine:
                raise SystemExit(f"batch {start}, file {i} has the error {error!r} and the row {row}")
            outcomes[re.sub(r"\d+", "N", error.split(", got ")[-1].split(" at index")[0])] += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"answered": outcomes.pop(""), "refused": outcomes, "peak MB": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
