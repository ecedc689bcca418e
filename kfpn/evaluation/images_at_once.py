"""Chooses by the memory of its device how many images a detector is given at once, and halves them where memory is used up."""

from collections.abc import Callable, Sequence

from kfpn.config.model import ModelConfig
from kfpn.config.run import Config
from kfpn.data.annotation_checks import LOGGER
from kfpn.data.eval_order import eval_order
from kfpn.data.out_of_memory import OutOfMemoryError, images_in_words, large_images
from kfpn.data.record import Source
from kfpn.evaluation.device_memory import default_device, device_kind, device_memory

IMAGE_BYTES = 1.2e9
"""Memory that a ResNet-50 of the usual width takes for an image of `IMAGE_PIXELS`, beside its weights."""
IMAGE_PIXELS = 800 * 1344
"""A canvas of COCO with a short side of 800 pixels."""
SHARE = 0.8
"""The share of a device's free memory that images may take: an allocator can't use all of the memory."""
UNKNOWN_MEMORY = 4_000_000_000
"""Bytes that count where the memory of a device is not known: those of a small GPU."""


class ImagesAtOnce:
    """Holds how many images each replica of a detector is given at once; there are fewer once memory was used up.

    Args:
        images: of each replica, at least 1.
        replicas: how many work side by side, each on images of its own.
        tell: takes the line that says that there are fewer from now on; None: a warning.
    """

    def __init__(self, images: int, replicas: int = 1, tell: Callable[[str], None] | None = None) -> None:
        if images < 1:
            raise ValueError(f"batch_size must be an integer of at least 1, got {images!r}")
        self.images = images
        self.replicas = replicas
        self.tell = tell or LOGGER.warning

    @property
    def rows(self) -> int:
        """Returns the images of one call, over all replicas."""
        return self.images * self.replicas

    @property
    def where(self) -> str:
        """Returns what a message says behind the number of images: nothing, or on how many devices."""
        return f" on each of {self.replicas} devices" if self.replicas > 1 else ""

    def halve(self, canvas: tuple[int, int], error: BaseException) -> None:
        """Goes on with half as many images after memory was used up.

        Args:
            canvas: height and width of the images.
            error: that TensorFlow or Python raised.

        Raises:
            OutOfMemoryError: naming the options that help, where there was one image already.
        """
        if self.images == 1:
            large, remedy = large_images((1, *canvas, 3))
            raise OutOfMemoryError(f"memory must be enough for {large}, got no more of it: {remedy}") from error
        large = images_in_words((self.images, *canvas, 3))
        self.images //= 2
        self.tell(f"memory is not enough to evaluate {large} at once{self.where}: goes on with {self.images} at once")


def choose_images_at_once(
    source: Source, config: Config, batch_size: int | None = None, devices: Sequence[str] = ()
) -> ImagesAtOnce:
    """Returns how many images a detector is given at once: `config.eval_batch_size` or, where that is None, by memory.

    Args:
        source: the data set.
        config: of the run.
        batch_size: images that are padded together; where memory decides, no more are given at once. None:
            `config.batch_size`.
        devices: of the replicas, one name each; empty: the one that TensorFlow uses by itself.
    """
    replicas = max(len(devices), 1)
    if config.eval_batch_size is not None:
        return ImagesAtOnce(config.eval_batch_size, replicas)
    most = config.batch_size if batch_size is None else batch_size
    if most < 1 or not len(source):  # whoever takes the images refuses both
        return ImagesAtOnce(most, replicas)
    memory = replica_memory(devices)
    return ImagesAtOnce(images_by_memory(image_bytes(source, config, most), memory, most), replicas)


def replica_memory(devices: Sequence[str]) -> int:
    """Returns the free memory of the replica that has least, in bytes; replicas on CPUs share the machine's."""
    names = list(devices) or [default_device()]
    kinds = [device_kind(name) for name in names]
    left = []
    for name, kind in zip(names, kinds, strict=True):
        memory = device_memory(name)
        sharing = kinds.count("CPU") if kind == "CPU" else 1
        left.append(UNKNOWN_MEMORY if memory is None else memory // sharing)
    return min(left)


def image_bytes(source: Source, config: Config, batch_size: int) -> float:
    """Returns the memory that an image of the largest canvas takes by the rule, in bytes.

    Args:
        source: the data set.
        config: of the run.
        batch_size: images that are padded together.
    """
    height, width = eval_order(source.sizes, config, batch_size).largest
    return IMAGE_BYTES * height * width / IMAGE_PIXELS * _width(config.model)


def images_by_memory(bytes_of_one: float, memory: float, most: int) -> int:
    """Returns how many images fit into a share of the memory: at least 1, at most `most`.

    Args:
        bytes_of_one: of `image_bytes`.
        memory: free bytes of a replica.
        most: the largest answer.
    """
    return max(1, min(most, int(SHARE * memory / bytes_of_one)))


def _width(model: ModelConfig) -> float:
    """Returns how many times as wide as usual a network is, at least 1: the rule was measured on the usual width."""
    return max(1.0, model.backbone_width / 64, model.pyramid_channels / 256)
