"""Trains and evaluates a small detector on the backend that KERAS_BACKEND names, where TensorFlow can't be imported; prints JSON.

Arguments: a file of arrays with a batch, and a folder to write into. `tests/training/test_other_backends.py` runs it.
"""

import json
import sys

ABSENT = ("tensorflow", "tensorflow_datasets")
"""What can't be imported here, and is not found where someone looks for it, as PyTorch does."""


def losses_of(batch):
    """Returns the losses of a batch, and the losses of two steps on it."""
    built = common.detector()
    model = kfpn.trainable(built, **common.SAMPLING)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    common.set_weights(built, batch)
    batch = {name: value for name, value in batch.items() if not name.startswith("weight_")}
    before = model.evaluate(batch, batch_size=2, verbose=0, return_dict=True)
    steps = [model.train_on_batch(batch, return_dict=True) for _ in range(2)]
    return before, [{name: float(value) for name, value in step.items()} for step in steps]


def fitted(folder):
    """Trains two epochs with the callbacks, and evaluates what they wrote."""
    built = common.detector(class_names=("green", "red"), num_classes=2)
    built.input_config = kfpn.InputConfig(short_side=64, long_side=64)
    train, val = made_up.source(0, 8), made_up.source(100, 4, name="validation")
    model = kfpn.trainable(built, **common.SAMPLING)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    batches, validation = kfpn.dataset(train, built, 4), kfpn.dataset(val, built, 2, train=False)
    figures = kfpn.callbacks.CocoAP(val)
    history = model.fit(
        batches, epochs=2, verbose=0, validation_data=validation,
        callbacks=[figures, kfpn.callbacks.Pictures(val, f"{folder}/pictures", count=1), kfpn.callbacks.WorkDirectory(f"{folder}/run")],
    ).history  # fmt: skip
    measured = kfpn.evaluate(f"{folder}/run", val, proposals=True, flip=True)
    plain = kfpn.evaluate(f"{folder}/run", val)
    image = val[0].image[None]
    own, loaded = (m.predict(image, verbose=0)["boxes"] for m in (built, kfpn.load_detector(f"{folder}/run")))
    (seen,) = kfpn.predict(f"{folder}/run", val[0].image, min_score=0.0)
    model.save(f"{folder}/model.keras")
    again = keras.models.load_model(f"{folder}/model.keras")
    after = [float(m.evaluate(validation, verbose=0, return_dict=True)["loss"]) for m in (model, again)]
    return {
        "history": history,
        "AP": plain["AP"],
        "flipped": measured["AP"],
        "recall": measured["proposals"]["AR@100"],
        "seen": len(seen),
        "moved": float(abs(own - loaded).max()),
        "after": after,
        "epoch": batches.epoch,
    }


if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(ABSENT))  # type: ignore[arg-type]
    import keras
    import numpy as np

    import kfpn
    from tests.training import made_up
    from tests.training import small_detector as common

    with np.load(sys.argv[1]) as file:
        given = dict(file)
    before, steps = losses_of(given)
    result = {"backend": keras.backend.backend(), "before": before, "steps": steps, **fitted(sys.argv[2])}
    result["tensorflow"] = [name for name, module in sys.modules.items() if name.split(".")[0] in ABSENT and module]
    print(json.dumps(result))
