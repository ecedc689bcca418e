"""On the backend that KERAS_BACKEND names, reads a set of TensorFlow Datasets, and compares tf.data's batches with Python's; prints JSON.

Argument: a folder, for the set. `tests/training/test_other_backends.py` runs it.
"""

import json
import sys

if __name__ == "__main__":
    import keras
    import numpy as np

    import kfpn
    from kfpn.data.formats.tfds import TfdsSource, prepared
    from tests.data.formats import test_tfds  # noqa: F401 (the set is known by its class)
    from tests.modeling import tiny

    source = TfdsSource(prepared("tiny", sys.argv[1]))
    rule = kfpn.InputConfig(short_side=64, long_side=64, flip=0.5)
    config = kfpn.Config(input=rule, model=tiny.config(num_classes=2))
    by_tensorflow, by_python = (kfpn.dataset(source, config, 2, kind=kind) for kind in ("tf.data", "python"))
    (given,), made = list(by_tensorflow.as_numpy_iterator()), by_python[0]
    same = {name: bool(np.array_equal(value, made[name])) for name, value in given.items()}
    backend = keras.backend.backend()
    print(
        json.dumps(
            {"backend": backend, "same": same, "names": sorted(made), "boxes": int((made["gt_labels"] >= 0).sum())}
        )
    )
