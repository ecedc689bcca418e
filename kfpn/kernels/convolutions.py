"""Computes convolutions in the forms that TensorFlow's kernels are fastest at, over the weights of other layers.

The kernels (oneDNN's on most processors) add a bias and a ReLU while they write a convolution's result. Their product of matrices with
a bias is slower than the convolution of 1x1 (bfloat16, two cores of a Sapphire Rapids: 22 against 7 ms for two maps of 128 x 128 with 256
channels), and the gradient of the convolution's kernel is slower than that product (19 against 9 ms). So each is used where it is faster.
"""

import keras
import tensorflow as tf


class PlainPointwise(keras.layers.Layer):
    """Computes a `PointwiseConv2D` as a convolution forwards and as products backwards.

    Args:
        layer: whose weights are used.

    Call:
        inputs: (B, H, W, C).

    Returns:
        (B, ceil(H / stride), ceil(W / stride), filters).
    """

    def __init__(self, layer: keras.layers.Layer):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer = layer

    def call(self, inputs):
        """Applies the convolution, see the class."""
        outputs = pointwise(inputs, tf.convert_to_tensor(self.layer.kernel), self.layer.strides[0])
        return outputs if self.layer.bias is None else tf.nn.bias_add(outputs, tf.convert_to_tensor(self.layer.bias))

    def compute_output_spec(self, inputs):
        """Returns the shape of the outputs."""
        return self.layer.compute_output_spec(inputs)


class FoldedConvolution(keras.layers.Layer):
    """Computes a convolution and the frozen batch norm behind it as one convolution with a bias.

    The norm's scale is multiplied into the kernel at each call, in float32. This costs about as much as convolving one cell of the map.

    Args:
        conv: a convolution without a bias, of any kernel and stride.
        norm: a batch norm that does not train.

    Call:
        inputs: (B, H, W, C).

    Returns:
        (B, H', W', filters), as the two layers give.
    """

    def __init__(self, conv: keras.layers.Conv2D, norm: keras.layers.BatchNormalization):
        super().__init__(name=norm.name, dtype=conv.dtype_policy, autocast=False)
        self.conv = conv
        self.norm = norm

    def call(self, inputs):
        """Applies the convolution and the norm, see the class."""
        norm, conv = self.norm, self.conv
        scale = norm.gamma * tf.math.rsqrt(norm.moving_variance + norm.epsilon)
        kernel = tf.cast(conv.kernel * scale, self.compute_dtype)
        bias = tf.cast(norm.beta - norm.moving_mean * scale, self.compute_dtype)
        stride = conv.strides[0]
        if conv.kernel.shape[:2] == (1, 1):
            outputs = pointwise(inputs, kernel, stride)
        else:
            outputs = tf.nn.conv2d(inputs, kernel, stride, conv.padding.upper())
        return tf.nn.bias_add(outputs, bias)

    def compute_output_spec(self, inputs):
        """Returns the shape of the outputs."""
        return self.conv.compute_output_spec(inputs)


class PlainMaxPooling(keras.layers.Layer):
    """Takes the largest of 3x3 values with stride 2 by TensorFlow's kernel: (B, H, W, C) -> (B, (H - 3) // 2 + 1, (W - 3) // 2 + 1, C)."""

    def call(self, inputs):
        """Takes the maxima, see the class."""
        return tf.nn.max_pool2d(inputs, 3, 2, "VALID")

    def compute_output_spec(self, inputs):
        """Returns the shape of the outputs."""
        batch, height, width, channels = inputs.shape
        sides = (None if side is None else (side - 3) // 2 + 1 for side in (height, width))
        return keras.KerasTensor((batch, *sides, channels), dtype=inputs.dtype)


def pointwise(inputs: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """Computes a convolution of 1x1: (B, H, W, C) and (1, 1, C, K) -> (B, ceil(H / stride), ceil(W / stride), K).

    Args:
        inputs, kernel: of one dtype.
        stride: int, 1 or 2.
    """

    @tf.custom_gradient
    def convolved(inputs, kernel):
        def gradient(upstream):
            read = inputs if stride == 1 else inputs[:, ::stride, ::stride]
            rows = tf.reshape(upstream, (-1, kernel.shape[3]))
            of_kernel = tf.matmul(tf.reshape(read, (-1, kernel.shape[2])), rows, transpose_a=True)
            if stride == 1:
                of_inputs = tf.reshape(tf.matmul(rows, kernel[0, 0], transpose_b=True), tf.shape(inputs))
            else:
                of_inputs = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(inputs), filter=kernel, out_backprop=upstream,
                    strides=[1, stride, stride, 1], padding="VALID",
                )  # fmt: skip
            return of_inputs, of_kernel[None, None]

        return tf.nn.conv2d(inputs, kernel, stride, "VALID"), gradient

    return convolved(inputs, kernel)
