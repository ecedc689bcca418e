"""Trains and evaluates a small detector by `fit`, on whatever backend Keras has."""

import keras
import numpy as np

import kfpn
from tests.training import made_up
from tests.training import small_detector as common

RATE = 0.01


def losses_of(batch, **options):
    """Returns the losses of a batch, the global norm of their gradients, and the losses of two steps on the batch.

    Args:
        batch: of `small_detector.batch` with masks, and the weights of the detector, which has masks and a cascade.
        options: of `compile`.
    """
    built = common.detector(mask=True, cascade=True)
    model = kfpn.trainable(built, **common.SAMPLING)
    model.compile(keras.optimizers.SGD(RATE, momentum=0.9), **options)
    common.set_weights(built, batch)
    batch = {name: value for name, value in batch.items() if not name.startswith("weight_")}
    before = model.evaluate(batch, batch_size=2, verbose=0, return_dict=True)
    old = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    steps = [model.train_on_batch(batch, return_dict=True)]
    # The first step of SGD moves each weight by the rate times its gradient.
    new = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    moved = sum(float(np.sum(np.square((one - other) / RATE))) for one, other in zip(old, new, strict=True))
    steps.append(model.train_on_batch(batch, return_dict=True))
    rows = [{name: float(value) for name, value in row.items()} for row in (before, *steps)]
    return {"before": rows[0], "gradient_norm": moved**0.5, "steps": rows[1:]}


def fitted(folder, **options):
    """Trains two epochs with the callbacks, evaluates what they wrote, and saves and loads the model.

    Args:
        folder: where files go.
        options: of `compile`.
    """
    built = common.detector(class_names=("green", "red"), num_classes=2)
    built.input_config = kfpn.InputConfig(short_side=64, long_side=64)
    train, val = made_up.source(0, 8), made_up.source(100, 4, name="validation")
    model = kfpn.trainable(built, **common.SAMPLING)
    model.compile(keras.optimizers.SGD(RATE, momentum=0.9), **options)
    batches, validation = kfpn.dataset(train, built, 4), kfpn.dataset(val, built, 4, train=False)
    history = model.fit(
        batches, epochs=2, verbose=0, validation_data=validation,
        callbacks=[
            kfpn.callbacks.CocoAP(val),
            kfpn.callbacks.Pictures(val, f"{folder}/pictures", count=1),
            kfpn.callbacks.WorkDirectory(f"{folder}/run"),
        ],
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
        "steps": int(keras.ops.convert_to_numpy(again.optimizer.iterations)),
    }
