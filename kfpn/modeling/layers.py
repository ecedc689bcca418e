"""Defines the layers that backbone and pyramid are made of, and the set that lets two graphs share them."""

from collections.abc import Callable

import keras
from keras import ops

from kfpn.ops.padding import padded_up, valid_mask


class SharedLayers:
    """Makes each named layer once, so that a second graph over the same set shares its weights.

    Args:
        frozen: function of a layer's name: True if its weights do not train.
    """

    def __init__(self, frozen: Callable[[str], bool] = lambda name: False):
        self._layers: dict[str, keras.layers.Layer] = {}
        self._frozen = frozen

    def __call__(self, name: str, make: Callable[..., keras.layers.Layer], **options) -> keras.layers.Layer:
        """Returns the layer called `name`, made by `make(name=name, **options)` at the first call."""
        if name not in self._layers:
            self._layers[name] = make(name=name, **options)
            if self._frozen(name):
                self._layers[name].trainable = False
        return self._layers[name]


@keras.saving.register_keras_serializable("kfpn")
class PointwiseConv2D(keras.layers.Conv2D):
    """Computes a 1x1 `Conv2D` as one matrix product, which is faster on CPUs, most of all backwards.

    Args:
        filters, strides, and all others of `keras.layers.Conv2D`; kernel_size is 1, data are channels-last.

    Call:
        inputs: (B, H, W, C).

    Returns:
        (B, ceil(H / stride), ceil(W / stride), filters).
    """

    def __init__(self, filters, strides=1, **kwargs):
        kwargs.pop("kernel_size", None)
        kwargs["padding"] = "same"
        kwargs["data_format"] = "channels_last"
        super().__init__(filters, 1, strides=strides, **kwargs)

    def call(self, inputs):
        step_y, step_x = self.strides
        if (step_y, step_x) != (1, 1):
            inputs = inputs[:, ::step_y, ::step_x]
        shape = ops.shape(inputs)
        outputs = ops.matmul(ops.reshape(inputs, (-1, inputs.shape[-1])), self.kernel[0, 0])
        if self.bias is not None:
            outputs = outputs + self.bias
        return ops.reshape(outputs, (*shape[:3], self.filters))

    def compute_output_spec(self, inputs):
        batch, height, width, _ = inputs.shape
        sides = (None if n is None else -(-n // s) for n, s in zip((height, width), self.strides, strict=True))
        return keras.KerasTensor((batch, *sides, self.filters), dtype=self.compute_dtype)


@keras.saving.register_keras_serializable("kfpn")
class RoIDense(keras.layers.Dense):
    """Applies a fully connected layer to whole RoIs.

    Training computes it as a matrix product, inference as a convolution of kernel size x size, which gives the same
    numbers. At inference XLA would fuse RoIAlign into the product and take more than twice as long for both (380 against
    161 ms for 1000 RoIs). In training the convolution's gradient would take ten times as long as the product's.

    Args:
        units, and all others of `keras.layers.Dense`.

    Call:
        inputs: (R, size, size, C), size and C static.

    Returns:
        (R, units).
    """

    def build(self, input_shape):
        _, height, width, channels = input_shape
        super().build((None, height * width * channels))
        self.input_spec = keras.layers.InputSpec(shape=(None, height, width, channels))

    def call(self, inputs, training=None):
        _, height, width, channels = inputs.shape
        if training:
            outputs = ops.matmul(ops.reshape(inputs, (-1, height * width * channels)), self.kernel)
        else:
            kernel = ops.reshape(self.kernel, (height, width, channels, self.units))
            outputs = ops.reshape(ops.conv(inputs, kernel, padding="valid"), (-1, self.units))
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs if self.activation is None else self.activation(outputs)

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor((inputs.shape[0], self.units), dtype=self.compute_dtype)


@keras.saving.register_keras_serializable("kfpn")
class MaskedGroupNormalization(keras.layers.GroupNormalization):
    """Computes `GroupNormalization` with statistics that leave out an image's padding.

    Args:
        those of `keras.layers.GroupNormalization`; the channels are last.

    Call:
        inputs: (B, H, W, C).
        valid: (B, H, W, 1), 1 inside the image, 0 in its padding; None for no padding.

    Returns:
        (B, H, W, C).
    """

    # The argument is not called "mask", because Keras would hand that on to every later layer.
    def call(self, inputs, valid=None):
        if valid is None:
            return super().call(inputs)
        shape = ops.shape(inputs)
        group = inputs.shape[-1] // self.groups
        x = ops.reshape(ops.cast(inputs, "float32"), (shape[0], shape[1] * shape[2], self.groups, group))
        mask = ops.reshape(ops.cast(valid, "float32"), (shape[0], shape[1] * shape[2], 1, 1))
        count = ops.maximum(ops.sum(mask, axis=(1, 2, 3), keepdims=True) * group, 1.0)
        mean = ops.sum(x * mask, axis=(1, 3), keepdims=True) / count
        centred = x - mean
        variance = ops.sum(ops.square(centred) * mask, axis=(1, 3), keepdims=True) / count
        normal = ops.reshape(centred * ops.rsqrt(variance + self.epsilon), shape)
        normal = normal * ops.cast(self.gamma, "float32") + ops.cast(self.beta, "float32")
        return ops.cast(normal, self.compute_dtype)

    def compute_output_spec(self, inputs, valid=None):
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)


@keras.saving.register_keras_serializable("kfpn")
class MaskedBatchNormalization(keras.layers.BatchNormalization):
    """Computes `BatchNormalization` with statistics that leave out the images' padding.

    Args:
        those of `keras.layers.BatchNormalization`; the channels are last.

    Call:
        inputs: (B, H, W, C).
        valid: (B, H, W, 1), 1 inside the image, 0 in its padding; None for no padding.

    Returns:
        (B, H, W, C).
    """

    def call(self, inputs, valid=None, training=None):
        if valid is None or not (training and self.trainable):
            return super().call(inputs, training=training)
        if not self.synchronized:
            return super().call(inputs, training=training, mask=ops.squeeze(valid, -1))
        # Keras computes masked statistics on each replica alone; these are of all replicas.
        x = ops.cast(inputs, "float32")
        valid = ops.cast(valid, "float32")
        sums = _mean_of_replicas(ops.append(ops.sum(x * valid, axis=(0, 1, 2)), ops.sum(valid)))
        filled = ops.maximum(sums[-1], 1e-12)
        mean = sums[:-1] / filled
        # Values are centred before they are squared, because the difference of mean square and squared mean is mostly
        # rounding. Training enlarges such errors until runs that sum in another order have nothing in common.
        variance = _mean_of_replicas(ops.sum(ops.square(x - mean) * valid, axis=(0, 1, 2))) / filled
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + ops.cast(value, moving.dtype) * (1.0 - self.momentum))
        scale = ops.cast(self.gamma, "float32") * ops.rsqrt(variance + self.epsilon)
        return ops.cast((x - mean) * scale + ops.cast(self.beta, "float32"), self.compute_dtype)

    def compute_output_spec(self, inputs, valid=None, training=None):
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)


@ops.custom_gradient
def _mean_of_replicas(x):
    """Returns the mean of (N,) over all replicas.

    Its gradient is the same mean of the replicas' gradients. It is written out because TensorFlow's own gradient of such
    a mean searches the graphs of all other replicas for variables: the first step of a ResNet-18 on two replicas took
    102 s instead of 33. The search ends at `stop_gradient`.
    """
    return _mean_without_gradient(x), _mean_without_gradient


def _mean_without_gradient(x):
    return ops.moments(ops.stop_gradient(x)[None], axes=0, synchronized=True)[0]


@keras.saving.register_keras_serializable("kfpn")
class PaddingMask(keras.layers.Layer):
    """Makes the mask of a level's valid cells.

    Args:
        stride: int, the level's stride in pixels.

    Call:
        like: (B, H, W, C), any tensor of the level.
        image_sizes: (B, 2) int, height and width in pixels.

    Returns:
        (B, H, W, 1) in the compute dtype: 1 inside the image, 0 in the padding.
    """

    def __init__(self, stride, **kwargs):
        super().__init__(**kwargs)
        self.stride = stride

    def call(self, like, image_sizes):
        shape = ops.shape(like)
        mask = valid_mask(image_sizes, self.stride, shape[1], shape[2])
        return ops.cast(mask, self.compute_dtype)[..., None]

    def compute_output_spec(self, like, image_sizes):
        return keras.KerasTensor((*like.shape[:3], 1), dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "stride": self.stride}


@keras.saving.register_keras_serializable("kfpn")
class PadToMultiple(keras.layers.Layer):
    """Pads maps with zeros below and right, to a multiple of 32: (B, H, W, C) -> (B, 32 ceil(H / 32), 32 ceil(W / 32), C)."""

    def call(self, x):
        missing = [padded_up(side) - side for side in ops.shape(x)[1:3]]
        # Sides that fit are known to fit where shapes are static: then no operation is left over.
        if all(isinstance(side, int) and side == 0 for side in missing):
            return x
        return ops.pad(x, [[0, 0], *([0, side] for side in missing), [0, 0]])

    def compute_output_spec(self, x):
        batch, height, width, channels = x.shape
        sides = (None if side is None else padded_up(side) for side in (height, width))
        return keras.KerasTensor((batch, *sides, channels), dtype=self.compute_dtype)


@keras.saving.register_keras_serializable("kfpn")
class Normalize(keras.layers.Layer):
    """Subtracts the pixel mean and divides by the standard deviation.

    Args:
        mean, std: three floats each, of R, G, B in 0..255.

    Call:
        images: (B, H, W, 3) uint8 or float, 0..255.

    Returns:
        (B, H, W, 3) in the compute dtype.
    """

    def __init__(self, mean, std, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.mean = tuple(mean)
        self.std = tuple(std)

    def call(self, images):
        images = ops.cast(images, "float32")
        normal = (images - ops.convert_to_tensor(self.mean, "float32")) / ops.convert_to_tensor(self.std, "float32")
        return ops.cast(normal, self.compute_dtype)

    def compute_output_spec(self, images):
        return keras.KerasTensor(images.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "mean": self.mean, "std": self.std}
