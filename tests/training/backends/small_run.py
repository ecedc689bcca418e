"""Trains a very small detector on made-up pictures by `kfpn.train`, on whatever backend Keras has; as a script it prints JSON.

python -m tests.training.backends.small_run FOLDER '{"steps": 20, ...}' ...      one run for each set of changes, in FOLDER/0, FOLDER/1 ...

As a script it runs where TensorFlow can't be imported, on the backend that KERAS_BACKEND names.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

ABSENT = ("tensorflow", "tensorflow_datasets")


def config(workdir, **changes):
    """Returns the settings of a run of a few steps.

    Args:
        workdir: of the run.
        changes: fields of the configuration; `model`, `optimizer`, `sampling` and `input` are dicts.
    """
    from kfpn.config.presets import preset
    from kfpn.config.run import InputConfig, OptimizerConfig

    base = preset("shapes")
    network = {
        "backbone": "resnet18", "backbone_width": 8, "pyramid_channels": 16, "head_width": 32, "norm": "bn", "num_classes": 2,
        "freeze_stages": 0, "pre_nms_train": 30, "post_nms_train": 30, "pre_nms_test": 30, "post_nms_test": 30,
    }  # fmt: skip
    rule = {"learning_rate": 0.001, "reference_batch": 4, "warmup_steps": 5, "clip_norm": 1.0, "ema_decay": 0.9}
    given = {
        "steps": 6, "batch_size": 4, "eval_every": 3, "checkpoint_every": 1, "log_every": 1, "samples": 1, "report": False,
        "strategy": "one_device",
    }  # fmt: skip
    sections = {name: changes.pop(name, {}) for name in ("model", "optimizer", "sampling", "input")}
    return replace(
        base,
        workdir=str(workdir),
        **{**given, **changes},
        model=replace(base.model, **{**network, **sections["model"]}),
        input=InputConfig(**{"short_side": 64, "long_side": 64, **sections["input"]}),
        sampling=replace(base.sampling, **{"rpn_batch": 16, "roi_batch": 8, **sections["sampling"]}),
        optimizer=OptimizerConfig(**{**rule, **sections["optimizer"]}),
    )


def trained(workdir, kill_at=None, command=None, **changes):
    """Trains, and returns final.json, or the error in one line; with `kill_at` the process is killed when that step was taken.

    With `command`, words of `kfpn`, nothing is trained: the command runs, and its exit code is returned.
    """
    import kfpn
    from kfpn.cli import main
    from kfpn.training.step_metrics import StepMetrics
    from tests.training import made_up

    if command:
        return {"code": main(command)}
    if kill_at:
        add = StepMetrics.add

        def add_or_die(self, values):
            add(self, values)
            if self.progress.step == kill_at - 1:
                os.kill(os.getpid(), signal.SIGKILL)

        StepMetrics.add = add_or_die
    settings = config(workdir, **changes)
    kind = {"kind": made_up.with_masks} if settings.model.learns_masks else {}
    try:
        return kfpn.train(settings, made_up.source(0, 8, **kind), made_up.source(100, 3, name="validation", **kind))
    except ValueError as error:
        return {"error": str(error)}


def rows_of(workdir, *names):
    """Returns the rows of training metrics: (steps, names)."""
    rows = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    return np.array([[row[name] for name in names] for row in rows if "lr" in row])


if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(ABSENT))  # type: ignore[arg-type]
    folder = Path(sys.argv[1])
    results = [trained(folder / str(number), **json.loads(changes)) for number, changes in enumerate(sys.argv[2:])]
    there = [name for name, module in sys.modules.items() if name.split(".")[0] in ABSENT and module]
    print(json.dumps({"runs": results, "tensorflow": there}))
