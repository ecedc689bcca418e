"""A whole run of `train`, from the command line's words: as in a terminal of its own. As a script.

python worker.py WORKDIR [name=value ...]     stop_at=N: SIGTERM to itself after N steps; slow_evaluation=SECONDS
"""

import os
import signal
import sys
import time
from dataclasses import replace

import made_up
import tensorflow as tf

import kfpn.engine.train as engine
from kfpn.cli import _plain_warnings
from kfpn.engine.loop import Loop
from kfpn.engine.workdir import Workdir


def at_step(step, act):
    """Calls `act` once `step` steps are done."""
    run_one = Loop._next

    def following(self, batches):
        batch = run_one(self, batches)
        if self.progress.step == step:
            act()
        return batch

    Loop._next = following


def main(workdir: str, *words: str) -> int:
    import same_answer

    options = dict(word.split("=") for word in words)
    if "stop_at" in options:
        at_step(int(options["stop_at"]), lambda: os.kill(os.getpid(), signal.SIGTERM))
    if "die_at" in options:
        at_step(int(options["die_at"]), lambda: os.kill(os.getpid(), signal.SIGKILL))
    if "slow_evaluation" in options:
        evaluate = engine.evaluate_source
        engine.evaluate_source = lambda *a, **k: time.sleep(float(options["slow_evaluation"])) or evaluate(*a, **k)
    strategy = options.get("strategy", "one_device")
    given = None
    if strategy == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        given = engine.make_strategy("mirrored", ["CPU:0", "CPU:1"], cross_device="reduction_to_one")
    steps = int(options.get("steps", 6))
    config = same_answer.detector_config(
        steps=steps, workdir=workdir, strategy=strategy, eval_every=int(options.get("eval_every", steps)), samples=1,
        checkpoint_every=int(options.get("checkpoint_every", 2)), norm=options.get("norm", "gn"),
        seed=int(options.get("seed", 0)),
    )  # fmt: skip
    if "learning_rate" in options:
        config = replace(config, optimizer=replace(config.optimizer, learning_rate=float(options["learning_rate"])))
    assert Workdir(workdir).path.parent.is_dir()
    try:
        with _plain_warnings():
            engine.train(config, made_up.source(0, 8), made_up.source(100, 2), given)
    except ValueError as error:
        print(f"kfpn: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
