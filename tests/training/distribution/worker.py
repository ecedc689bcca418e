"""Runs a whole training as a command does: of the stand-in, or with `detector` of a real detector by `train`.

python -m tests.training.distribution.worker standin|detector WORKDIR [name=value ...]

strategy=one_device|mirrored|multi_worker; die_at=N, stop_at=N: SIGKILL or SIGTERM to itself in step N + 1;
slow_evaluation=SECONDS; steps=N; learning_rate=R and on_nan=stop|skip, of the detector
"""

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import tensorflow as tf

from kfpn.training import results
from kfpn.training.distribution.strategy import make_strategy
from kfpn.training.train import train
from tests.training import made_up, standin, test_loop
from tests.training.distribution import same_answer
from tests.training.signals import signal_in_step


def strategy_of(name: str) -> tf.distribute.Strategy:
    if name != "mirrored":
        return make_strategy(name)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return make_strategy("mirrored", ["CPU:0", "CPU:1"], cross_device="reduction_to_one")


def run(network: str, workdir: str, options: dict[str, str]) -> None:
    steps, seconds = int(options.get("steps", 6)), float(options.get("slow_evaluation", 0))
    strategy = strategy_of(options["strategy"])
    if network == "standin":
        config = replace(standin.config(steps=steps), checkpoint_every=2)
        test_loop.start(Path(workdir), config, lambda step: time.sleep(seconds) or {}, strategy=strategy)
        return
    evaluate = results.evaluate_source
    results.evaluate_source = lambda *a, **k: time.sleep(seconds) or evaluate(*a, **k)
    config = same_answer.detector_config(
        steps=steps, workdir=workdir, strategy=options["strategy"], eval_every=steps, checkpoint_every=2, samples=1,
        on_nan=options.get("on_nan", "stop"),
    )  # fmt: skip
    if rate := options.get("learning_rate"):
        hot = replace(config.optimizer, learning_rate=float(rate), warmup_steps=0, clip_norm=None)
        config = replace(config, optimizer=hot)
    train(config, made_up.source(0, 8), made_up.source(100, 2), strategy)


def main(network: str, workdir: str, *words: str) -> int:
    options = dict(word.split("=") for word in words)
    for name, number in (("die_at", signal.SIGKILL), ("stop_at", signal.SIGTERM)):
        if name in options:
            signal_in_step(int(options[name]), number)
    try:
        run(network, workdir, options)
    except ValueError as error:
        print(f"kfpn: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
