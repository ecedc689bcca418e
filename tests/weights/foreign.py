"""Makes tiny random weights as other projects write them, and computes in torch what their networks compute.

The names are written out here as these projects have them. Nothing of kfpn is used, so that both can't have the same mistake.
"""

import pickle

import numpy as np

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
SMALL = {"channels": 8, "hidden": 16, "roi": 7, "anchors": 3}


def trunk(backbone="resnet18", width=8, seed=0, groups=1):
    """Returns the kernels (out, in, h, w) and norms of a backbone: {(stage, block, part): {"w", "g", "b", "m", "v"}}.

    Part 0 of a block is its shortcut.
    """
    rng = np.random.default_rng([seed, 1])
    shapes, inputs = {(1, 0, 1): (width, 3, 7)}, width
    for stage, count in enumerate(BLOCKS[backbone], start=2):
        inner = width * 2 ** (stage - 2)
        outer = inner if backbone == "resnet18" else 4 * inner
        for block in range(count):
            if backbone == "resnet18":
                parts = {1: (inner, inputs, 3), 2: (inner, inner, 3)}
            else:
                parts = {1: (inner, inputs, 1), 2: (inner, inner // groups, 3), 3: (outer, inner, 1)}
            if block == 0 and inputs != outer:
                parts[0] = (outer, inputs, 1)
            shapes.update({(stage, block, part): shape for part, shape in parts.items()})
            inputs = outer
    units = {}
    for key, (out, into, side) in shapes.items():
        variance = 10 ** rng.uniform(-3, 0.3, out)  # if a variance is small, the epsilon matters
        units[key] = {
            "w": rng.normal(0, (2 / (into * side * side)) ** 0.5, (out, into, side, side)),
            "g": rng.uniform(0.5, 1.5, out) * variance**0.5,
            "b": rng.uniform(-0.3, 0.3, out),
            "m": rng.uniform(-0.3, 0.3, out),
            "v": variance,
        }
    return {key: {name: value.astype(np.float32) for name, value in unit.items()} for key, unit in units.items()}


def heads(units, classes=3, background_first=True, seed=0, **sizes):
    """Returns {part: (weight, bias)} of pyramid, RPN and box head for a trunk, in PyTorch's layout."""
    rng, size = np.random.default_rng([seed, 2]), SMALL | sizes
    widths = [max(unit["b"].size for (at, _, _), unit in units.items() if at == stage) for stage in (2, 3, 4, 5)]
    channels, hidden = size["channels"], size["hidden"]
    shapes = {f"inner{i}": (channels, width, 1, 1) for i, width in enumerate(widths)}
    shapes |= {f"layer{i}": (channels, channels, 3, 3) for i in range(4)}
    shapes |= {"conv": (channels, channels, 3, 3), "logits": (size["anchors"], channels, 1, 1)}
    shapes |= {"deltas": (4 * size["anchors"], channels, 1, 1), "fc1": (hidden, channels * size["roi"] ** 2)}
    shapes |= {"fc2": (hidden, hidden), "cls": (classes + 1, hidden), "box": (4 * (classes + background_first), hidden)}
    return {
        part: tuple(
            value.astype(np.float32)
            for value in (rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape), rng.uniform(-0.3, 0.3, shape[0]))
        )
        for part, shape in shapes.items()
    }


def mask_head(classes=3, width=6, seed=0, channels=SMALL["channels"]):
    """Returns {part: (weight, bias)} of a mask head, in PyTorch's layout; `classes` counts the background where it has a mask."""
    rng = np.random.default_rng([seed, 3])
    shapes = {f"mask{i}": (width, channels if i == 1 else width, 3, 3) for i in range(1, 5)}
    shapes |= {"deconv": (width, width, 2, 2), "masks": (classes, width, 1, 1)}  # a deconvolution's is (in, out, h, w)
    return {
        part: (
            rng.normal(0, (2 / (shape[1] * np.prod(shape[2:]))) ** 0.5, shape).astype(np.float32),
            rng.uniform(-0.3, 0.3, shape[1] if part == "deconv" else shape[0]).astype(np.float32),
        )
        for part, shape in shapes.items()
    }


def cascade(units, classes=3, seed=0):
    """Returns the layers {part: (weight, bias)} of the box head of each stage of a cascade, in PyTorch's layout, with one box for all classes."""
    stages = []
    for stage in range(3):
        layers = heads(units, classes, background_first=False, seed=seed + 10 * stage)
        layers["box"] = tuple(value[:4] for value in layers["box"])
        stages.append({part: layers[part] for part in ("fc1", "fc2", "cls", "box")})
    return stages


# ------------------------------------------------------------------------------------------------ names


def _pytorch(units, names, prefix=""):
    state = {}
    for key, unit in units.items():
        conv, norm = (prefix + name for name in names(*key))
        state[f"{conv}.weight"] = unit["w"]
        for theirs, ours in (("weight", "g"), ("bias", "b"), ("running_mean", "m"), ("running_var", "v")):
            state[f"{norm}.{theirs}"] = unit[ours]
    return state


def torchvision_backbone(units, prefix=""):
    def names(stage, block, part):
        at = f"layer{stage - 1}.{block}"
        if stage == 1:
            return "conv1", "bn1"
        return (f"{at}.conv{part}", f"{at}.bn{part}") if part else (f"{at}.downsample.0", f"{at}.downsample.1")

    return _pytorch(units, names, prefix)


def detectron2_backbone(units, prefix=""):
    def names(stage, block, part):
        at = "stem.conv1" if stage == 1 else f"res{stage}.{block}." + (f"conv{part}" if part else "shortcut")
        return at, f"{at}.norm"

    return _pytorch(units, names, prefix)


def caffe2_backbone(units):
    """Returns arrays without moving mean and variance, but with the classifier and the stem's bias, as in the real files."""
    state = {
        "conv1_b": np.ones(8, np.float32),
        "fc1000_w": np.ones((5, 8), np.float32),
        "fc1000_b": np.ones(5, np.float32),
    }
    for (stage, block, part), unit in units.items():
        conv = "conv1" if stage == 1 else f"res{stage}_{block}_branch" + ("1", "2a", "2b", "2c")[part]
        norm = "res_conv1_bn" if stage == 1 else f"{conv}_bn"
        state |= {f"{conv}_w": unit["w"], f"{norm}_s": unit["g"], f"{norm}_b": unit["b"]}
    return state


def _named(layers, names):
    """Returns the arrays of layers by their names there; `layers` may have a mask head, see `mask_head`."""
    weights = {f"{names[part]}.weight": weight for part, (weight, _) in layers.items()}
    return weights | {f"{names[part]}.bias": bias for part, (_, bias) in layers.items()}


def torchvision(units, layers, old=False):
    """Returns a state_dict of fasterrcnn_resnet*_fpn, with the names of torchvision since 0.13 or (`old`) before it."""
    block = "" if old else ".0"
    names = {f"inner{i}": f"backbone.fpn.inner_blocks.{i}{block}" for i in range(4)}
    names |= {f"layer{i}": f"backbone.fpn.layer_blocks.{i}{block}" for i in range(4)}
    names |= {"conv": "rpn.head.conv" if old else "rpn.head.conv.0.0", "logits": "rpn.head.cls_logits"}
    names |= {"deltas": "rpn.head.bbox_pred", "fc1": "roi_heads.box_head.fc6", "fc2": "roi_heads.box_head.fc7"}
    names |= {"cls": "roi_heads.box_predictor.cls_score", "box": "roi_heads.box_predictor.bbox_pred"}
    names |= {f"mask{i}": f"roi_heads.mask_head.{f'mask_fcn{i}' if old else f'{i - 1}.0'}" for i in range(1, 5)}
    names |= {"deconv": "roi_heads.mask_predictor.conv5_mask", "masks": "roi_heads.mask_predictor.mask_fcn_logits"}
    return torchvision_backbone(units, "backbone.body.") | _named(layers, names)


def detectron2(units, layers, **buffers):
    """Returns the "model" of a file of detectron2's zoo; buffers: `pixel_mean`, `pixel_std`, `cells` (five arrays (A, 4), xyxy)."""
    names = {f"inner{i}": f"backbone.fpn_lateral{i + 2}" for i in range(4)}
    names |= {f"layer{i}": f"backbone.fpn_output{i + 2}" for i in range(4)}
    names |= {"conv": "proposal_generator.rpn_head.conv", "logits": "proposal_generator.rpn_head.objectness_logits"}
    names |= {"deltas": "proposal_generator.rpn_head.anchor_deltas", "fc1": "roi_heads.box_head.fc1"}
    names |= {"fc2": "roi_heads.box_head.fc2", "cls": "roi_heads.box_predictor.cls_score"}
    names |= {"box": "roi_heads.box_predictor.bbox_pred", "deconv": "roi_heads.mask_head.deconv"}
    names |= {f"mask{i}": f"roi_heads.mask_head.mask_fcn{i}" for i in range(1, 5)}
    names |= {"masks": "roi_heads.mask_head.predictor"}
    state = detectron2_backbone(units, "backbone.bottom_up.") | _named(layers, names)
    for i, cell in enumerate(buffers.pop("cells", ())):
        state[f"proposal_generator.anchor_generator.cell_anchors.{i}"] = np.asarray(cell, np.float32)
    return state | {name: np.reshape(value, (3, 1, 1)).astype(np.float32) for name, value in buffers.items()}


def detectron2_cascade(units, layers, stages, **buffers):
    """Returns the "model" of a Cascade R-CNN of detectron2's zoo; `stages` are those of `cascade`, the rest as `detectron2`."""
    names = {"fc1": "box_head.{}.fc1", "fc2": "box_head.{}.fc2", "cls": "box_predictor.{}.cls_score"}
    names |= {"box": "box_predictor.{}.bbox_pred"}
    state = detectron2(units, layers, **buffers)
    state = {
        name: value for name, value in state.items() if not name.startswith(("roi_heads.box_head.", "roi_heads.box_p"))
    }
    for i, stage in enumerate(stages):
        state |= _named(stage, {part: "roi_heads." + name.format(i) for part, name in names.items()})
    return state


def cell_anchors(sizes, ratios):
    """Returns detectron2's cell anchors of levels with sizes [[32], [64], ...]: (A, 4) x1, y1, x2, y2 around the origin."""
    sides = [[(size * ratio**-0.5, size * ratio**0.5) for size in level for ratio in ratios] for level in sizes]
    return [np.array([(-w / 2, -h / 2, w / 2, h / 2) for w, h in level]) for level in sides]


# ------------------------------------------------------------------------------------------------ files


def write(path, content, legacy=False):
    """Writes a file in the format of its ending, .pth (`legacy`: as before torch 1.6), .safetensors or .pkl, and returns its path."""
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content, protocol=2))
    elif path.suffix == ".safetensors":
        import pytest

        arrays = {name: np.array(value, order="C") for name, value in content.items()}
        pytest.importorskip("safetensors.numpy").save_file(arrays, path)
    else:
        torch = _torch()
        torch.save(_tensors(content), path, _use_new_zipfile_serialization=not legacy)
    return path


def _torch():
    import pytest

    return pytest.importorskip("torch")


def _tensors(content):
    if isinstance(content, dict):
        return {name: _tensors(value) for name, value in content.items()}
    return _torch().tensor(content) if isinstance(content, np.ndarray) else content


# ------------------------------------------------------------------------------------------------ numbers


def features(units, layers, image, stride_on="3x3", epsilon=1e-5):
    """Returns [P2, ..., P6] of a normalised image (1, 3, H, W), torch float64 NCHW."""
    functional = _torch().nn.functional
    x = functional.max_pool2d(_unit(units[1, 0, 1], _torch().tensor(image).double(), 2, epsilon).relu(), 3, 2, 1)
    maps = []
    for stage in (2, 3, 4, 5):
        for block in range(1 + max(block for at, block, _ in units if at == stage)):
            step = 2 if stage > 2 and block == 0 else 1
            basic = (stage, block, 3) not in units
            first = step if basic or stride_on == "1x1" else 1
            y = _unit(units[stage, block, 1], x, first, epsilon).relu()
            y = _unit(units[stage, block, 2], y, step // first, epsilon)
            if not basic:
                y = _unit(units[stage, block, 3], y.relu(), 1, epsilon)
            if (stage, block, 0) in units:
                x = _unit(units[stage, block, 0], x, step, epsilon)
            x = (x + y).relu()
        maps.append(x)
    merged = [conv(layers["inner3"], maps[3])]
    for i in (2, 1, 0):
        side = conv(layers[f"inner{i}"], maps[i])
        merged.insert(0, side + functional.interpolate(merged[0], size=side.shape[-2:], mode="nearest"))
    outputs = [conv(layers[f"layer{i}"], x) for i, x in enumerate(merged)]
    return [*outputs, functional.max_pool2d(outputs[-1], 1, 2)]


def _unit(unit, x, step, epsilon):
    x = conv((unit["w"], None), x, step)
    gamma, beta, mean, variance = (_torch().tensor(unit[name]).double()[:, None, None] for name in "gbmv")
    return (x - mean) / (variance + epsilon) ** 0.5 * gamma + beta


def conv(layer, x, step=1):
    """Convolves with half the kernel as padding: (1, C, H, W) -> (1, out, H / step, W / step)."""
    weight, bias = (None if value is None else _torch().tensor(value).double() for value in layer)
    return _torch().nn.functional.conv2d(x, weight, bias, stride=step, padding=weight.shape[-1] // 2)


def rpn(layers, x):
    """Returns logits (N,) and deltas (N, 4) dx, dy, dw, dh of one level, anchors ordered (y, x, ratio)."""
    hidden = conv(layers["conv"], x).relu()
    logits, deltas = (conv(layers[part], hidden)[0].permute(1, 2, 0) for part in ("logits", "deltas"))
    return logits.reshape(-1).numpy(), deltas.reshape(-1, 4).numpy()


def box_head(layers, rois):
    """Returns class logits and box deltas (dx, dy, dw, dh) of RoI features (R, C, S, S)."""
    linear, tensor = _torch().nn.functional.linear, lambda part: [_torch().tensor(x).double() for x in layers[part]]
    x = linear(_torch().tensor(rois).double().flatten(1), *tensor("fc1")).relu()
    x = linear(x, *tensor("fc2")).relu()
    return linear(x, *tensor("cls")).numpy(), linear(x, *tensor("box")).numpy()


def mask_logits(layers, rois):
    """Returns the logits (R, K, 28, 28) of masks for RoI features (R, C, 14, 14)."""
    x = _torch().tensor(rois)
    for i in range(1, 5):
        x = conv(layers[f"mask{i}"], x).relu()
    weight, bias = (_torch().tensor(value).double() for value in layers["deconv"])
    x = _torch().nn.functional.conv_transpose2d(x, weight, bias, stride=2).relu()
    return conv(layers["masks"], x).numpy()


def padded(image, multiple=32):
    """Returns (1, C, H, W) with zeros below and right, as both libraries pad a normalised image: to a multiple of 32."""
    missing = [-side % multiple for side in image.shape[2:]]
    return np.pad(image, [(0, 0), (0, 0), *((0, side) for side in missing)])


def check(submodels, image, normalised, units, layers, background_first=True, **network):
    """Asserts that a detector's submodels compute from `image` what this network computes from `normalised`.

    Args:
        submodels: of the detector.
        image: (1, H, W, 3) RGB 0..255.
        normalised: (1, 3, H, W), the same image as the other project feeds it, before it pads it.
        units: the backbone, see `trunk`.
        layers: the layers behind it, see `heads`.
        background_first: whether the background is the first class.
        network: see `features`.
    """
    expected, levels = features(units, layers, padded(normalised), **network), submodels.features(image)
    outputs = submodels.rpn(levels)
    for i, level in enumerate(expected):
        near(levels[f"P{i + 2}"], np.transpose(level.numpy(), (0, 2, 3, 1)))
        logits, deltas = rpn(layers, level)
        near(outputs["logits"][i][0], logits)
        near(outputs["deltas"][i][0], deltas[:, [1, 0, 3, 2]])
    rois = np.random.default_rng(3).normal(size=(5, SMALL["channels"], 7, 7)).astype(np.float32)
    outputs = submodels.heads["box"](np.transpose(rois, (0, 2, 3, 1)))
    logits, deltas = box_head(layers, rois)
    deltas = deltas.reshape(5, -1, 4)[..., [1, 0, 3, 2]]
    near(outputs["logits"], np.roll(logits, -1, axis=1) if background_first else logits)
    near(outputs["deltas"], deltas[:, 1:] if background_first else deltas)


def near(ours, expected):
    ours = np.array(ours)
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * expected.std())
