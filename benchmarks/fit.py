"""Trains the built-in shapes by `compile` and `fit`, and prints AP and time, to compare with `kfpn train`.

    python benchmarks/fit.py                                    # TensorFlow, by XLA in float32, as Keras does by itself
    python benchmarks/fit.py --precision mixed_bfloat16 --no-jit-compile      # what is faster on a CPU with AMX
    KERAS_BACKEND=jax python benchmarks/fit.py
    kfpn train --steps 3300                                     # to compare

Network, data, samplers, batch and steps are those of the preset `shapes`. SGD, its schedule, its clipping and the average of the
weights are Keras' own, set as a user of Keras would set them. `train seconds` is the time in `fit`, compilation included, without
the evaluation that follows.
"""

import argparse
import os
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def optimizer(config: Any, steps: int) -> Any:
    """Returns Keras' SGD with the settings of a kfpn.Config."""
    import keras

    settings = config.optimizer
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=steps - settings.warmup_steps,
        warmup_target=settings.learning_rate * config.batch_size / settings.reference_batch,
        warmup_steps=settings.warmup_steps,
    )
    # Keras takes the decay off the weights beside the momentum. An L2 penalty of the same size acts through the momentum.
    decay = settings.weight_decay / (1.0 - settings.momentum)
    sgd = keras.optimizers.SGD(
        schedule,
        momentum=settings.momentum,
        weight_decay=decay,
        global_clipnorm=settings.clip_norm,
        use_ema=True,
        ema_momentum=settings.ema_decay,
    )
    sgd.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return sgd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="steps of the run; without it those of the preset")
    parser.add_argument("--precision", default="float32", help="float32 or mixed_bfloat16")
    parser.add_argument(
        "--jit-compile", action=argparse.BooleanOptionalAction, default=None, help="without it Keras decides"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun = time.perf_counter()
    import keras

    import kfpn
    from kfpn.config.presets import preset

    keras.utils.set_random_seed(options.seed)
    keras.config.set_dtype_policy(options.precision)
    config = preset("shapes")
    model = {name: value for name, value in vars(config.model).items() if name != "num_classes"}
    source = kfpn.open_source("shapes")
    detector = kfpn.build_detector(class_names=source.class_names, **model)
    detector.input_config = config.input
    batches = kfpn.dataset("shapes", config, config.batch_size)
    steps = options.steps or config.steps
    per_epoch = batches.num_batches if hasattr(batches, "num_batches") else len(batches)
    epochs = max(1, round(steps / per_epoch))
    trained = kfpn.trainable(detector, seed=None, **vars(config.sampling))
    jit = {} if options.jit_compile is None else {"jit_compile": options.jit_compile}
    trained.compile(optimizer(config, epochs * per_epoch), **jit)
    fitting = time.perf_counter()
    trained.fit(batches, epochs=epochs, verbose=2, callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)])
    seconds = time.perf_counter() - fitting
    with tempfile.TemporaryDirectory() as folder:
        kfpn.save_detector(detector, folder)
        figures = kfpn.evaluate(folder, "shapes", precision="float32")
    print(
        f"backend {keras.backend.backend()}, {options.precision}, seed {options.seed}: {epochs * per_epoch} steps, "
        f"AP {figures['AP']:.3f}, AP50 {figures['AP50']:.3f}, AP75 {figures['AP75']:.3f}; "
        f"train seconds {seconds:.0f}, all {time.perf_counter() - begun:.0f}"
    )


if __name__ == "__main__":
    main()
