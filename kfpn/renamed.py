"""Finds modules by the paths that they had in version 0.1.0, with a warning that names the new path.

A path that never was, or that is still in use, is not touched. The table stays for ever: what README and docs of 0.1.0
imported keeps working. What they did not show may be gone, or may take other arguments.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Sequence
from typing import Any

MODULES = {
    "kfpn.anchors": "kfpn.ops.anchors",
    "kfpn.boxes": "kfpn.ops.boxes",
    "kfpn.commands": "kfpn.cli.commands",
    "kfpn.data.checks": "kfpn.data.annotation_checks",
    "kfpn.data.coco": "kfpn.data.formats.coco",
    "kfpn.data.iterable": "kfpn.data.formats.iterable",
    "kfpn.data.memory": "kfpn.data.memory_limit",
    "kfpn.data.proposals": "kfpn.data.proposal_table",
    "kfpn.data.scenes": "kfpn.data.toy_scenes",
    "kfpn.data.shapes": "kfpn.data.formats.toy_shapes",
    "kfpn.data.sources": "kfpn.data.formats",
    "kfpn.data.tfds": "kfpn.data.formats.tfds",
    "kfpn.data.voc": "kfpn.data.formats.voc",
    "kfpn.engine.checkpoint": "kfpn.runs.checkpoint",
    "kfpn.engine.cluster": "kfpn.training.distribution.cluster",
    "kfpn.engine.diagnose": "kfpn.training.nonfinite.diagnose",
    "kfpn.engine.faults": "kfpn.training.nonfinite.policy",
    "kfpn.engine.files": "kfpn.runs.atomic_files",
    "kfpn.engine.follow": "kfpn.training.distribution.worker_stubs",
    "kfpn.engine.interrupt": "kfpn.training.interrupt",
    "kfpn.engine.lock": "kfpn.runs.lock",
    "kfpn.engine.loop": "kfpn.training.loop",
    "kfpn.engine.nan": "kfpn.training.nonfinite.recorder",
    "kfpn.engine.optimizer": "kfpn.training.optimizer",
    "kfpn.engine.precision": "kfpn.runs.precision",
    "kfpn.engine.report": "kfpn.training.progress",
    "kfpn.engine.resolve": "kfpn.training.distribution.cluster_resolver",
    "kfpn.engine.results": "kfpn.training.results",
    "kfpn.engine.schedule": "kfpn.training.schedule",
    "kfpn.engine.step": "kfpn.training.step",
    "kfpn.engine.strategy": "kfpn.training.distribution.strategy",
    "kfpn.engine.train": "kfpn.training.train",
    "kfpn.engine.trained": "kfpn.runs.load",
    "kfpn.engine.workdir": "kfpn.runs.workdir",
    "kfpn.evaluation.coco": "kfpn.evaluation.coco_figures",
    "kfpn.evaluation.proposals": "kfpn.evaluation.recall",
    "kfpn.export.convertible": "kfpn.export.tf_trt.converter_rules",
    "kfpn.export.images": "kfpn.export.saved_model.graph_images",
    "kfpn.export.int8": "kfpn.export.onnx.int8",
    "kfpn.export.onnx_check": "kfpn.export.onnx.verify_onnx",
    "kfpn.export.onnx_graph": "kfpn.export.onnx.onnx_detector",
    "kfpn.export.onnx_runtimes": "kfpn.export.onnx.onnx_runtimes",
    "kfpn.export.runners": "kfpn.export.benchmark.runners",
    "kfpn.export.saved_layers": "kfpn.kernels.sparse_roi_align",
    "kfpn.export.segments": "kfpn.export.tf_trt.trt_partition",
    "kfpn.export.serving": "kfpn.export.saved_model.serving_files",
    "kfpn.export.shapes": "kfpn.export.input_shape",
    "kfpn.export.source": "kfpn.export.trained",
    "kfpn.export.trt_check": "kfpn.export.tf_trt.verify_tf_trt",
    "kfpn.export.trt_inputs": "kfpn.export.tf_trt.trt_inputs",
    "kfpn.export.trt_layers": "kfpn.export.tensorrt_layers",
    "kfpn.export.trt_options": "kfpn.export.tf_trt.trt_options",
    "kfpn.image_pyramid": "kfpn.inference.image_pyramid",
    "kfpn.levels": "kfpn.ops.pyramid_levels",
    "kfpn.matching": "kfpn.losses.matching",
    "kfpn.model_config": "kfpn.config.model",
    "kfpn.modeling.adaptive": "kfpn.ops.roi_align_adaptive",
    "kfpn.modeling.box_head": "kfpn.modeling.heads.box",
    "kfpn.modeling.detections": "kfpn.modeling.heads.box",
    "kfpn.modeling.fixed_proposals": "kfpn.modeling.fast_rcnn",
    "kfpn.modeling.nms": "kfpn.ops.nms",
    "kfpn.modeling.padding": "kfpn.ops.padding",
    "kfpn.modeling.resnet": "kfpn.modeling.backbones.resnet",
    "kfpn.modeling.roi_align": "kfpn.ops.roi_align",
    "kfpn.modeling.training": "kfpn.losses.training_losses",
    "kfpn.options": "kfpn.cli.options",
    "kfpn.page": "kfpn.plotting.panels",
    "kfpn.predict": "kfpn.inference.predict",
    "kfpn.presets": "kfpn.config.presets",
    "kfpn.propose": "kfpn.inference.write_proposals",
    "kfpn.pyramid_maps": "kfpn.inference.inspect_pyramid",
    "kfpn.rules": "kfpn.config.checks",
    "kfpn.scales": "kfpn.config.test_scales",
    "kfpn.targets": "kfpn.losses.targets",
    "kfpn.visualize": "kfpn.plotting.draw_boxes",
    "kfpn.visualize_pyramid": "kfpn.plotting.pyramid_page",
    "kfpn.weights.applications": "kfpn.weights.makers.keras_applications",
    "kfpn.weights.backbones": "kfpn.weights.makers.resnet_names",
    "kfpn.weights.checkpoint": "kfpn.weights.makers.trained_weights",
    "kfpn.weights.coco": "kfpn.weights.makers.coco_classes",
    "kfpn.weights.detectors": "kfpn.weights.makers.detector_layout",
    "kfpn.weights.detectron2": "kfpn.weights.makers.detectron2",
    "kfpn.weights.files": "kfpn.weights.formats.file_formats",
    "kfpn.weights.importing": "kfpn.weights.import_weights",
    "kfpn.weights.load": "kfpn.weights.assign",
    "kfpn.weights.plain": "kfpn.weights.formats.safe_values",
    "kfpn.weights.read": "kfpn.weights.identify",
    "kfpn.weights.torchvision": "kfpn.weights.makers.torchvision",
    "kfpn.weights.unpickle": "kfpn.weights.formats.unpickle",
}
"""Path in 0.1.0 -> path now."""

NAMES: dict[str, str] = {
    "kfpn.boxes.decode": "kfpn.ops.boxes.decode_boxes",
    "kfpn.boxes.encode": "kfpn.ops.boxes.encode_boxes",
    "kfpn.data.sources.IterableSource": "kfpn.data.formats.iterable.IterableSource",
    "kfpn.engine.report.Report": "kfpn.training.progress.ProgressReport",
    "kfpn.engine.report.dispensable": "kfpn.training.progress.warn_on_write_error",
    "kfpn.engine.step.in_parts": "kfpn.training.step.accumulate",
    "kfpn.engine.strategy.describe": "kfpn.training.distribution.strategy.describe_strategy",
    "kfpn.engine.trained.load_detector": "kfpn.runs.load.load_trained_detector",
    "kfpn.export.segments.Report": "kfpn.export.tf_trt.trt_partition.ConversionReport",
    "kfpn.export.shapes.input_shape": "kfpn.export.input_shape.parse_input_shape",
    "kfpn.export.source.Trained": "kfpn.export.trained.TrainedDetector",
    "kfpn.modeling.box_head.box_head": "kfpn.modeling.heads.box.build",
    "kfpn.modeling.detections.Detections": "kfpn.modeling.heads.box.SelectDetections",
    "kfpn.modeling.fixed_proposals.fixed_noise_shapes": "kfpn.losses.training_losses.fixed_noise_shapes",
    "kfpn.modeling.fixed_proposals.fixed_proposal_losses": "kfpn.losses.training_losses.fixed_proposal_losses",
    "kfpn.modeling.fixed_proposals.storyboard": "kfpn.losses.training_losses.training_functions",
    "kfpn.modeling.nms.CUT": "kfpn.ops.nms.FIRST_CANDIDATES",
    "kfpn.modeling.padding.Normalize": "kfpn.modeling.layers.Normalize",
    "kfpn.modeling.padding.PaddingMask": "kfpn.modeling.layers.PaddingMask",
    "kfpn.modeling.resnet.frozen_stage": "kfpn.modeling.backbones.frozen_layers",
    "kfpn.modeling.roi_align.RoIAlign": "kfpn.modeling.pooling.RoIAlign",
    "kfpn.pyramid_maps.opened_model": "kfpn.inference.inspect_pyramid.model_with_intermediates",
    "kfpn.visualize.plot_curves": "kfpn.plotting.curves.plot_curves",
    "kfpn.visualize_pyramid.Objectness": "kfpn.plotting.pyramid_view.Objectness",
    "kfpn.visualize_pyramid.relative": "kfpn.plotting.pyramid_page.between_percentiles",
    "kfpn.visualize_pyramid.spread": "kfpn.plotting.pyramid_page.spread_over_image",
    "kfpn.weights.checkpoint.Checkpoint": "kfpn.weights.makers.trained_weights.TrainedWeights",
    "kfpn.weights.load.apply": "kfpn.weights.assign.assign_weights",
    "kfpn.weights.load.read_checkpoint": "kfpn.weights.identify.read_trained_weights",
    "kfpn.weights.load.settings_of": "kfpn.weights.built_detector.built_settings",
    "kfpn.weights.load.variables_of": "kfpn.weights.built_detector.variables_of",
    "kfpn.weights.read.layers_of": "kfpn.weights.built_detector.layers_of",
    "kfpn.weights.read.read_checkpoint": "kfpn.weights.identify.read_trained_weights",
    "kfpn.weights.read.variables_of": "kfpn.weights.built_detector.variables_of",
}
"""Names whose module in 0.1.0 is not the one at the new path, or that are called otherwise now."""

PACKAGES = ("kfpn.engine",)
"""Packages of 0.1.0 that are gone: only their modules can still be imported."""


class RenamedModule(types.ModuleType):
    """Stands at an old path, and gives and changes what the module at the new path has."""

    def __getattr__(self, name: str) -> Any:
        """Returns the attribute of the module at the new path; classes are the very same objects."""
        module, attribute = _place_now(self.__name__, name)
        try:
            return getattr(module, attribute)
        except AttributeError:
            if name.startswith("__"):
                raise
            raise AttributeError(
                f"{self.__name__} is now {MODULES[self.__name__]}, which has no {name!r}: it is gone or never was. "
                "What stays is what `kfpn` itself offers: see dir(kfpn)"
            ) from None

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets the attribute at the new path as well, for tests that replace a function by its old path."""
        if name.startswith("__"):
            super().__setattr__(name, value)
        else:
            module, attribute = _place_now(self.__name__, name)
            if hasattr(module, attribute):
                self.__dict__.setdefault("__replaced__", {}).setdefault(name, getattr(module, attribute))
            setattr(module, attribute, value)

    def __delattr__(self, name: str) -> None:
        """Takes back what was set by this path: tests end so what they replaced. What was not set here is deleted."""
        module, attribute = _place_now(self.__name__, name)
        replaced = self.__dict__.get("__replaced__", {})
        if name in replaced:
            setattr(module, attribute, replaced.pop(name))
        else:
            delattr(module, attribute)

    def __dir__(self) -> list[str]:
        """Returns the names of the module at the new path."""
        return dir(importlib.import_module(MODULES[self.__name__]))


class RenamedFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the old paths, where Python itself finds nothing."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns a spec for an old path; None for all others."""
        if fullname in PACKAGES:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in MODULES else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        """Returns the module that stands for the new path, and warns; an empty one for a package that is gone."""
        if spec.name in PACKAGES:
            return None
        warnings.warn(
            f"{spec.name} is now {MODULES[spec.name]}; better still, use what `kfpn` itself offers",
            FutureWarning,
            stacklevel=2,
        )
        return RenamedModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Imports the module at the new path, so that an error in it is seen here."""
        if module.__name__ in MODULES:
            new = importlib.import_module(MODULES[module.__name__])
            module.__doc__ = new.__doc__
            module.__all__ = _public_names(new)  # type: ignore[attr-defined]


def _place_now(old_module: str, name: str) -> tuple[types.ModuleType, str]:
    place = NAMES.get(f"{old_module}.{name}", f"{MODULES[old_module]}.{name}")
    module, _, attribute = place.rpartition(".")
    return importlib.import_module(module), attribute


def _public_names(module: types.ModuleType) -> list[str]:
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    return sorted(names)


def install() -> None:
    """Makes the old paths importable."""
    if not any(isinstance(finder, RenamedFinder) for finder in sys.meta_path):
        sys.meta_path.append(RenamedFinder())
