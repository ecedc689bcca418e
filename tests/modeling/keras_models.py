"""Makes Keras models that are small enough to be a backbone in every test."""

import keras


def convolutions(width=8, preparing=False, size=(None, None, 3), strides=(2, 2, 2, 2, 2), groups=1):
    """Returns five convolutions with batch norm and ReLU, named conv1 to conv5, bn1 and relu1 and so on.

    Args:
        width: channels of the first; the others have more.
        preparing: whether the first layer prepares the pixels.
        size: of the input.
        strides: of the convolutions.
        groups: of a further convolution with GELU behind the first one, where they are more than 1; `width` of them have one channel each.
    """
    inputs = keras.Input(size)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs) if preparing else inputs
    for i, stride in enumerate(strides, start=1):
        x = keras.layers.Conv2D(width * i, 3, strides=stride, padding="same", name=f"conv{i}")(x)
        x = keras.layers.BatchNormalization(name=f"bn{i}")(x)
        x = keras.layers.ReLU(name=f"relu{i}")(x)
        if groups > 1 and i == 1:
            x = keras.layers.Conv2D(
                width, 3, padding="same", groups=groups, activation="gelu", bias_initializer="normal", name="groups"
            )(x)
    return keras.Model(inputs, x, name="mine")


def squeezing():
    """Returns the same with a squeeze-and-excitation block at stride 4, whose mean is that of the whole canvas."""
    base = convolutions()
    x = base.get_layer("relu2").output
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = keras.layers.Multiply()([x, keras.layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(gate)])
    for _i in (3, 4, 5):
        x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(base.inputs, x, name="squeezing")
