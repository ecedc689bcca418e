"""Runs the same few steps on one replica, on two replicas of one process, or in two processes; as a script it writes their states.

python same_answer.py one,mirrored OUT.npz STEPS CASE...     python same_answer.py worker OUT.npz STEPS CASE...  (with TF_CONFIG)
"""

import sys
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from kfpn.config.presets import preset
from kfpn.config.run import Config, InputConfig, OptimizerConfig
from kfpn.data.pipeline import train_batches
from kfpn.modeling.submodels import build_submodels
from kfpn.training.distribution.strategy import make_strategy
from kfpn.training.optimizer import Optimizer
from kfpn.training.step import build_train_step
from tests.training import made_up, standin

NORMS = ("frozen_bn", "gn", "sync_bn")
PRECISIONS = {"": "float32", "_mixed": "mixed_bfloat16", "_fp16": "mixed_float16"}


def detector_config(norm="gn", accumulate=1, precision="float32", steps=20, mask=False, **settings) -> Config:
    """Returns the settings of a very small real detector: four pictures of 64 x 64 a step, clipped gradients, averaged weights."""
    base = preset("shapes")
    width = 32 if norm == "gn" else 8  # GroupNorm has 32 groups
    small = {"backbone": "resnet18", "backbone_width": width, "pyramid_channels": 16, "head_width": 32}
    masks = {"mask": mask, "mask_channels": width}
    few = {"pre_nms_train": 30, "post_nms_train": 30, "pre_nms_test": 30, "post_nms_test": 30}
    # The norms of an untrained network enlarge rounding errors. At a rate of 0.01 even one replica ends with other weights
    # if its sums are added in another order. The coarser rounding of mixed precision has the same effect.
    rate = 0.01 if norm == "frozen_bn" and precision == "float32" else 0.001
    optimizer = {"learning_rate": rate, "reference_batch": 4, "warmup_steps": 5, "clip_norm": 1.0, "ema_decay": 0.9}
    return replace(
        base,
        steps=steps,
        batch_size=4,
        accumulate=accumulate,
        precision=precision,
        jit_compile=False,
        log_every=1,
        model=replace(base.model, norm=norm, num_classes=2, freeze_stages=0, **small, **few, **masks),
        input=InputConfig(64, 64),
        sampling=replace(base.sampling, rpn_batch=16, roi_batch=8),
        optimizer=OptimizerConfig(**optimizer),
        **settings,
    )


def run_detector(config: Config, strategy: tf.distribute.Strategy, permuted=False):
    """Returns (state after `config.steps` steps, metrics of each step) of the real detector on made-up pictures."""
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    with strategy.scope():
        submodels = build_submodels(config.model)
        optimizer = Optimizer(config, submodels.weights_model.trainable_variables)
    step = build_train_step(submodels, config, optimizer, strategy)
    batches = train_batches(made_up.source(0, 8, kind=made_up.with_masks), config)
    if permuted:  # adds the same sums in another order, which shows how much rounding alone changes
        batches = batches.map(lambda batch: {name: tf.gather(value, [2, 0, 3, 1]) for name, value in batch.items()})
    iterator = iter(strategy.experimental_distribute_dataset(batches))
    rows = [{k: float(v) for k, v in step(next(iterator)).items() if k != "stop"} for _ in range(config.steps)]
    keras.config.set_dtype_policy("float32")
    return [v.numpy() for v in [*submodels.weights_model.variables, *optimizer.variables]], rows


def run_case(case: str, steps: int, strategy: tf.distribute.Strategy, permuted=False):
    """Runs a case by its name, such as `standin_gn_in_parts`, `detector_sync_bn_mixed` or `overflow`."""
    if case == "overflow":
        config = standin.config(steps=3, precision="mixed_float16")
        return standin.run(config, strategy, batch_norm=False, losses=standin.overflowing)
    network, _, rest = case.partition("_")
    norm = next(norm for norm in NORMS if rest.startswith(norm))
    parts = 2 if "_in_parts" in rest else 1
    precision = PRECISIONS["_mixed" if "_mixed" in rest else "_fp16" if "_fp16" in rest else ""]
    if network == "detector":
        return run_detector(detector_config(norm, parts, precision, steps, mask=True), strategy, permuted)
    config = replace(standin.config(steps=steps, norm=norm, precision=precision), accumulate=parts)
    return standin.run(config, strategy, synchronized=norm == "sync_bn", batch_norm=norm == "sync_bn")


def main(kinds: str, out: str, steps: str, *cases: str) -> None:
    arrays = {}
    for kind in kinds.split(","):
        if kind == "mirrored":
            strategy = make_strategy("mirrored", ["CPU:0", "CPU:1"], cross_device="reduction_to_one")
        else:
            strategy = make_strategy("multi_worker" if kind == "worker" else "one_device")
        for case in cases:
            state, rows = run_case(case, int(steps), strategy, permuted=kind == "permuted")
            names = sorted(rows[0])
            arrays[f"{kind}/{case}/rows"] = np.array([[row[name] for name in names] for row in rows])
            arrays |= {f"{kind}/{case}/{i:03d}": value for i, value in enumerate(state)}
    np.savez(out, **arrays)


if __name__ == "__main__":
    if "mirrored" in sys.argv[1]:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    main(*sys.argv[1:])
