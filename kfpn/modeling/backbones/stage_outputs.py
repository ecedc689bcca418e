"""Finds the maps C2 to C5 in a functional Keras model: the last ones at strides 4, 8, 16 and 32."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

STRIDES = {"C2": 4, "C3": 8, "C4": 16, "C5": 32}
PROBE = (256, 384)
"""Height and width of the made-up image by whose maps strides are told; no pixel is computed."""
SHOWN = 4
"""Candidates of a stride that an error lists, the last ones."""


def stage_outputs(model: keras.Model, layers: Sequence[str] | None = None) -> dict[str, keras.KerasTensor]:
    """Returns the maps of a model that are C2 to C5.

    These are, the first that there is: the outputs of the layers that are named; `pyramid_outputs` P2 to P5, which KerasHub's
    backbones have; the model's own outputs, if there is one at each stride; the last map at each stride. A map counts where
    it has exactly the image's sides divided by the stride, for sides that are multiples of it.

    Args:
        model: functional, of images (B, H, W, 3) of any size.
        layers: the names of four layers of the model, of C2, C3, C4 and C5.

    Returns:
        {"C2": (B, H / 4, W / 4, C), "C3": ..., "C4": ..., "C5": ...}, symbolic tensors of the model's graph.

    Raises:
        ValueError: naming the model, if it is not functional, takes other inputs, or lacks a map; with the maps that it has.
    """
    require_images_of_any_size(model)
    offered = getattr(model, "pyramid_outputs", None)
    if layers is not None:
        maps = dict(zip(STRIDES, (_output_of(model, name) for name in layers), strict=True))
    elif isinstance(offered, Mapping) and {"P2", "P3", "P4", "P5"} <= offered.keys():
        maps = {f"C{level}": offered[f"P{level}"] for level in (2, 3, 4, 5)}
    else:
        return _last_maps(model)
    return _of_right_strides(model, maps)


def require_images_of_any_size(model: Any) -> None:
    """Checks that a model is functional and takes one batch of images (B, H, W, 3) of any size.

    Raises:
        ValueError: naming the model, with what to do.
    """
    if not isinstance(model, keras.Model):
        hint = ": call it, and give the model that it returns" if callable(model) else ""
        raise ValueError(f"backbone must be a name or a keras.Model, got a {type(model).__name__}{hint}")
    inputs = _tensors(model, "inputs")
    if not inputs or not _tensors(model, "outputs"):
        raise ValueError(
            f"backbone must be a functional keras.Model, got {model.name}, a {type(model).__name__} without symbolic inputs: its "
            "maps can't be found. Build it as keras.Model(inputs, outputs) of keras.Input((None, None, 3))"
        )
    if len(inputs) > 1:
        raise ValueError(f"backbone must have one input, the images, got {len(inputs)} in {model.name}")
    shape = tuple(inputs[0].shape[1:])
    if len(shape) != 3 or shape[2] != 3:
        raise ValueError(
            f"backbone must take images of 3 channels, (None, None, 3), got the input {shape} in {model.name}: build it for RGB"
        )
    if shape[:2] != (None, None):
        raise ValueError(
            f"backbone must take images of any size, got the input {shape} in {model.name}: build it with "
            "input_shape=(None, None, 3), for networks of keras.applications with include_top=False as well"
        )


def _tensors(model: keras.Model, name: str) -> list:
    # Models that are not functional, and those that were never built, have no such attribute or raise when asked for it.
    try:
        return list(getattr(model, name) or [])
    except (AttributeError, ValueError):
        return []


def maps_by_stride(model: keras.Model) -> dict[int, dict[str, keras.KerasTensor]]:
    """Returns the maps of a model: {stride: {name of the layer: output}}, in the order in which they are computed."""
    named = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):  # The maps within it belong to a graph of its own.
            continue
        try:
            output = layer.output
        except (AttributeError, ValueError):  # a layer of another graph as well, or one without an output
            continue
        is_input = isinstance(layer, keras.layers.InputLayer)
        if isinstance(output, keras.KerasTensor) and len(output.shape) == 4 and not is_input:
            named[layer.name] = output
    strides = strides_of(model, list(named.values()))
    maps: dict[int, dict[str, keras.KerasTensor]] = {}
    for (name, output), stride in zip(named.items(), strides, strict=True):
        if stride is not None:
            maps.setdefault(stride, {})[name] = output
    return maps


def strides_of(model: keras.Model, tensors: Sequence[keras.KerasTensor]) -> list[int | None]:
    """Returns the stride of each map; None where it is no power of two, or a border is cut off or added."""
    if not tensors:
        return []
    try:
        shapes = keras.Model(model.inputs, list(tensors)).compute_output_shape((1, *PROBE, 3))
    except Exception as error:  # layers raise errors of many types
        raise ValueError(
            f"backbone must take images of {PROBE[0]} x {PROBE[1]}, got an error in {model.name}: {_first_line(error)}"
        ) from error
    return [_stride(shape) for shape in shapes]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _stride(shape: Sequence[int | None]) -> int | None:
    for stride in (1, 2, 4, 8, 16, 32, 64):
        if tuple(shape[1:3]) == (PROBE[0] // stride, PROBE[1] // stride) and shape[3] is not None:
            return stride
    return None


def _last_maps(model: keras.Model) -> dict[str, keras.KerasTensor]:
    outputs = [tensor for tensor in _tensors(model, "outputs") if len(tensor.shape) == 4]
    own = {stride: tensor for tensor, stride in zip(outputs, strides_of(model, outputs), strict=True)}
    if set(STRIDES.values()) <= own.keys():
        return {name: own[stride] for name, stride in STRIDES.items()}
    maps = maps_by_stride(model)
    missing = [stride for stride in STRIDES.values() if stride not in maps]
    if missing:
        nested = [layer.name for layer in model.layers if isinstance(layer, keras.Model)]
        hint = f"; maps within the nested {nested[0]} count if it is the backbone by itself" if nested else ""
        raise ValueError(
            f"backbone must have maps of strides 4, 8, 16 and 32, got none of stride {', '.join(map(str, missing))} in "
            f"{model.name}, which has {_listed(maps)}: a pyramid needs all four, with sides of H / stride (padding 'same'){hint}"
        )
    return {name: list(maps[stride].values())[-1] for name, stride in STRIDES.items()}


def _of_right_strides(model: keras.Model, maps: dict[str, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
    for (name, stride), actual in zip(STRIDES.items(), strides_of(model, list(maps.values())), strict=True):
        if actual != stride:
            raise ValueError(
                f"backbone_layers must have stride {stride} for {name}, got {actual or 'no power of two'} in {model.name}, which "
                f"has {_listed(maps_by_stride(model))}"
            )
    return maps


def _output_of(model: keras.Model, name: str) -> keras.KerasTensor:
    for stride_maps in (maps := maps_by_stride(model)).values():
        if name in stride_maps:
            return stride_maps[name]
    raise ValueError(
        f"backbone_layers must name layers of {model.name} that give maps, got {name!r}; it has {_listed(maps)}"
    )


def _listed(maps: Mapping[int, Mapping[str, Any]]) -> str:
    parts = []
    for stride in sorted(maps):
        names = list(maps[stride])[-SHOWN:]
        before = "..., " if len(maps[stride]) > SHOWN else ""
        parts.append(f"stride {stride}: {before}{', '.join(names)}")
    return "; ".join(parts) or "no maps"
