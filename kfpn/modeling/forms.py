"""Says in which form a backend computes what stands between the networks of a detector."""

from collections.abc import Callable

from kfpn.ops.roi_align import stored


class Forms:
    """Computes all as it is written, with `keras.ops`. A backend that is faster with something else derives a class."""

    def island(self, function: Callable) -> Callable:
        """Returns a function of tensors in the form in which it is computed.

        Args:
            function: of nested tuples, lists and dicts of tensors, and returns such. It holds no convolutions.
        """
        return function

    def align(self, layer):
        """Returns the layer that pools RoIs, see `kfpn.modeling.pooling.RoIAlign`, in the form in which it is computed."""
        return layer

    def kept(self, pooled):
        """Returns pooled RoIs (N, size, size, C) as they are, in memory where they would be computed twice, see `stored`."""
        return stored(pooled)


AS_WRITTEN = Forms()
