"""Makes the inputs of models that take features."""

import keras


def feature_input(shape: tuple[int | None, ...], name: str) -> keras.KerasTensor:
    """Returns the input (B, *shape) of a model of features, in the dtype that layers compute in.

    Keras would make it float32, and cast bfloat16 to float32 and back.
    """
    return keras.Input(shape, name=name, dtype=keras.config.dtype_policy().compute_dtype)
