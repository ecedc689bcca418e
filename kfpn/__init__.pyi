"""Says to type checkers where each public name of kfpn stands; `_PLACES` in __init__.py says it to Python."""

from kfpn.config.input_config import InputConfig as InputConfig
from kfpn.config.model import ModelConfig as ModelConfig
from kfpn.config.optimizer_config import OptimizerConfig as OptimizerConfig
from kfpn.config.presets import preset as preset
from kfpn.config.run import Config as Config
from kfpn.config.sampling_config import SamplingConfig as SamplingConfig
from kfpn.config.tile_options import Tiles as Tiles
from kfpn.data.class_table import describe_source as describe_source
from kfpn.data.formats import open_source as open_source
from kfpn.data.formats.iterable import IterableSource as IterableSource
from kfpn.data.image import load_picture as load_picture
from kfpn.data.object_masks import ObjectMasks as ObjectMasks
from kfpn.data.record import Record as Record
from kfpn.data.record import Source as Source
from kfpn.evaluation.recall import evaluate_proposals as evaluate_proposals
from kfpn.export.onnx.write_onnx import export_onnx as export_onnx
from kfpn.export.saved_model.write_saved_model import export_saved_model as export_saved_model
from kfpn.inference.detections import Detections as Detections
from kfpn.inference.evaluate import evaluate as evaluate
from kfpn.inference.image_pyramid import ImagePyramid as ImagePyramid
from kfpn.inference.inspect_pyramid import model_with_intermediates as model_with_intermediates
from kfpn.inference.inspect_pyramid import view_image as view_image
from kfpn.inference.predict import predict as predict
from kfpn.inference.tiled_pyramid import TiledPyramid as TiledPyramid
from kfpn.modeling.detector import build_detector as build_detector
from kfpn.modeling.fast_rcnn import proposals_model as proposals_model
from kfpn.modeling.segmenter import build_segmenter as build_segmenter
from kfpn.ops.mask_paste import paste_masks as paste_masks
from kfpn.plotting.draw_boxes import draw_detections as draw_detections
from kfpn.plotting.pyramid_page import draw_page as draw_page
from kfpn.runs.load import load_segmenter as load_segmenter
from kfpn.runs.load import load_submodels as load_submodels
from kfpn.runs.workdir import Workdir as Workdir
from kfpn.training import callbacks as callbacks
from kfpn.training.automatic import auto_config as auto_config
from kfpn.training.datasets import dataset as dataset
from kfpn.training.train import train as train
from kfpn.training.trainable import trainable as trainable
from kfpn.weights.assign import from_preset as from_preset
from kfpn.weights.assign import load_detector as load_detector
from kfpn.weights.assign import load_weights as load_weights
from kfpn.weights.import_weights import import_weights as import_weights
from kfpn.weights.pretrained import list_pretrained as list_pretrained
from kfpn.weights.save_detector import save_detector as save_detector

__version__: str
