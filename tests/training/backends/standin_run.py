"""Trains a network of a few weights on made-up pictures by `kfpn.train` on JAX, where TensorFlow can't be imported; as a command it ends.

python -m tests.training.backends.standin_run WORKDIR '{"strategy": "multi_worker", "steps": 6, ...}'

The changes are fields of the configuration, and: die_at, stop_at: SIGKILL or SIGTERM to itself in step N + 1; slow_evaluation: seconds
that each evaluation of the chief takes longer.
"""

import json
import signal
import sys
import time
from types import SimpleNamespace

from tests.training.backends.small_run import ABSENT, config
from tests.training.signals import signal_in_step


def network(_config):
    """Returns the stand-in for the submodels, with a batch norm, whose statistics are those of the whole batch."""
    import keras

    layers = [
        keras.Input((64, 64, 3)),
        keras.layers.Conv2D(4, 9, strides=8, use_bias=False),
        keras.layers.BatchNormalization(momentum=0.5),
        keras.layers.Flatten(),
        keras.layers.Dense(2),
    ]
    return SimpleNamespace(weights_model=keras.Sequential(layers))


def losses(submodels, _config, batch, noise, training=True):
    from keras import ops

    outputs = submodels.weights_model(ops.cast(batch["images"], "float32") / 255.0, training=training)
    targets = ops.stack([ops.mean(noise["rpn"], axis=1), batch["gt_boxes"][:, 0, 0] / 64.0], axis=1)
    errors = ops.square(outputs - targets)
    return {"rpn_class": errors[:, 0], "roi_box": errors[:, 1]}


def noise_shapes(_config, height, width, _max_boxes):
    return {"rpn": (height * width,)}


def evaluate_slowly(seconds):
    from kfpn.training.run_evaluation import RunEvaluation

    measure = RunEvaluation.measure
    RunEvaluation.measure = lambda self: time.sleep(seconds) or measure(self)


def main(workdir, die_at=None, stop_at=None, slow_evaluation=0, **changes):
    import kfpn
    from kfpn.training import setup
    from kfpn.training.backends import jax_backend
    from tests.training import made_up

    setup.build_network = network
    jax_backend.run_functions = lambda _config: (losses, noise_shapes)
    for step, number in ((die_at, signal.SIGKILL), (stop_at, signal.SIGTERM)):
        if step is not None:
            signal_in_step(step, number)
    evaluate_slowly(slow_evaluation)
    optimizer = {"learning_rate": 0.05, "warmup_steps": 2, **changes.pop("optimizer", {})}
    settings = {"steps": 6, "eval_every": 3, "checkpoint_every": 2, "log_every": 2, **changes, "optimizer": optimizer}
    try:
        kfpn.train(config(workdir, **settings), made_up.source(0, 8))
    except ValueError as error:
        print(f"kfpn: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(ABSENT))  # type: ignore[arg-type]
    sys.exit(main(sys.argv[1], **json.loads(sys.argv[2])))
