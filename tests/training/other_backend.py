"""Runs `tests.training.fitting` on the backend that KERAS_BACKEND names, where TensorFlow can't be imported; prints JSON.

Arguments: a file of arrays with a batch, and a folder to write into. `tests/training/test_other_backends.py` runs it.
"""

import json
import sys

ABSENT = ("tensorflow", "tensorflow_datasets")
"""What can't be imported here, and is not found where someone looks for it, as PyTorch does."""

if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(ABSENT))  # type: ignore[arg-type]
    import keras
    import numpy as np

    from tests.training import fitting

    with np.load(sys.argv[1]) as file:
        given = dict(file)
    result = {"backend": keras.backend.backend(), **fitting.losses_of(given), "fitted": fitting.fitted(sys.argv[2])}
    result["tensorflow"] = [name for name, module in sys.modules.items() if name.split(".")[0] in ABSENT and module]
    print(json.dumps(result))
