"""Trains the backbone that all rows of `ablation.py` start from: a ResNet that tells the shapes apart.

    python benchmarks/ablation_backbone.py runs/ablation/backbone.safetensors      # two minutes on 2 cores

It takes the place of the paper's ImageNet classifier: it learns the classes of single objects, without boxes and without a
pyramid. Each picture is a square cut around one object of a scene of `shapes`. The square is larger than the object by a random
factor, and is then resized. The script prints the accuracy on objects of the validation split. The tensors in the file have
torchvision's names, so that any `--init` reads it.
"""

import dataclasses
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image
from tqdm import tqdm

from kfpn.config.model import ModelConfig
from kfpn.data.formats import open_source
from kfpn.data.image import load_image
from kfpn.data.record import Source
from kfpn.modeling.submodels import build_submodels
from kfpn.weights.makers.resnet_names import torchvision_naming, units

SIDE = 64  # pixels of a picture
LARGEST = 4.0  # a cut-out is at least as wide as its object, and at most this many times as wide
EPOCHS = 4
BATCH = 64
RATE = 0.1


def cut_outs(source: Source, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns a picture (N, SIDE, SIDE, 3) uint8 of each object of a source, and its label (N,)."""
    rng = np.random.default_rng(seed)
    pictures, labels = [], []
    for index in tqdm(range(len(source)), desc="cut out", unit="scene", leave=False):
        record = source[index]
        image = Image.fromarray(load_image(record))
        for (y1, x1, y2, x2), label in zip(record.boxes, record.labels, strict=True):
            side = max(y2 - y1, x2 - x1)
            half = side * LARGEST ** rng.uniform() / 2
            y, x = ((low + high) / 2 + rng.uniform(-0.25, 0.25) * side for low, high in ((y1, y2), (x1, x2)))
            window = (x - half, y - half, x + half, y + half)
            # Beyond the scene the picture is black.
            picture = image.transform((SIDE, SIDE), Image.Transform.EXTENT, window, Image.Resampling.BILINEAR)
            pictures.append(np.asarray(picture))
            labels.append(label)
    return np.stack(pictures), np.array(labels)


def train_backbone(model: ModelConfig, path: Path, seed: int = 0) -> float:
    """Trains the backbone of a detector as a classifier and writes its weights; returns its accuracy.

    Args:
        model: configuration of the detector, with the backbone, its width and its norm.
        path: file to write, `.safetensors`.
        seed: of the weights and of the cut-outs.
    """
    keras.utils.set_random_seed(seed)
    train, validation = (cut_outs(open_source("shapes", split), seed) for split in ("train", "validation"))
    features = build_submodels(model).features
    x = keras.layers.GlobalAveragePooling2D()(features.output["C5"])
    classes = int(train[1].max()) + 1
    classifier = keras.Model(features.input, keras.layers.Dense(classes)(x))
    steps = EPOCHS * -(-len(train[1]) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(RATE / 10, steps, warmup_target=RATE, warmup_steps=steps // 20)
    classifier.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True,
    )
    classifier.fit(*train, batch_size=BATCH, epochs=EPOCHS, verbose=1 if sys.stderr.isatty() else 2)
    accuracy = classifier.evaluate(*validation, batch_size=BATCH, verbose=0)[1]
    write_backbone(features, model.backbone, path)
    return accuracy


def write_backbone(features: keras.Model, backbone: str, path: Path) -> None:
    """Writes a backbone's convolutions and batch norms under torchvision's names."""
    from safetensors.numpy import save_file

    tensors = {}
    for unit in units(backbone):
        conv, norm = torchvision_naming(unit)
        kernel = features.get_layer(f"{unit.name}_conv").kernel.numpy()
        tensors[f"{conv}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        layer = features.get_layer(f"{unit.name}_norm")
        parts = {"weight": layer.gamma, "bias": layer.beta, "running_mean": layer.moving_mean}
        for name, variable in {**parts, "running_var": layer.moving_variance}.items():
            tensors[f"{norm}.{name}"] = variable.numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"aside.{path.name}")
    save_file(tensors, aside)
    os.replace(aside, path)


if __name__ == "__main__":
    from ablation import CONFIG

    accuracy = train_backbone(dataclasses.replace(CONFIG.model, pyramid="c5"), Path(sys.argv[1]))
    print(f"accuracy on single objects of the validation scenes: {accuracy:.3f}")
