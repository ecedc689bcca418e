"""Lists the makers of weights that kfpn reads: one module and one row of the table for each.

A maker's module tells by the names of a file's arrays whether it knows them, and has `read`, which turns them into
`TrainedWeights`.
"""

from collections.abc import Callable
from typing import NamedTuple

from kfpn.weights.makers import caffe2, detectron2, keras_applications, torchvision
from kfpn.weights.makers.foreign_arrays import ForeignArrays
from kfpn.weights.makers.trained_weights import TrainedWeights


class Maker(NamedTuple):
    """One row of the table.

    Attributes:
        networks: what messages call the networks of the maker that kfpn has.
        in_hdf5: whether they come in HDF5 files, or else in PyTorch, pickle and safetensors files.
        recognises: tells whether arrays are the maker's.
        read: reads them.
    """

    networks: str
    in_hdf5: bool
    recognises: Callable[[ForeignArrays], bool]
    read: Callable[[ForeignArrays], TrainedWeights]


MAKERS = (
    Maker(
        "torchvision's fasterrcnn_ and maskrcnn_resnet*_fpn and ResNets",
        False,
        torchvision.is_torchvision,
        torchvision.read,
    ),
    Maker("MSRA's ResNets with Caffe2's names", False, caffe2.is_caffe2, caffe2.read),
    Maker(
        "detectron2's faster_, mask_ and cascade_mask_rcnn_R_*_FPN and ResNets",
        False,
        detectron2.is_detectron2,
        detectron2.read,
    ),
    Maker(
        "keras.applications' ResNet-50, 101 or 152",
        True,
        keras_applications.is_applications,
        keras_applications.read,
    ),
)
"""Asked in this order; the first that recognises the arrays reads them."""
