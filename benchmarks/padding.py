"""Measures what padding changes: compares the outputs for each image alone with those for the same image in a padded batch.

    python benchmarks/padding.py --workdir runs/shapes      # a trained detector
    python benchmarks/padding.py                            # a ResNet-50 FPN with random weights and norms

Prints the largest differences over the images of one batch: of boxes in pixels, of scores, and of every pyramid level in units of
its standard deviation.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SIZES = ((128, 96), (75, 101), (160, 144), (33, 150))


def models(workdir):
    """Returns the detector for single images and the one for padded batches. Both have the same weights."""
    import numpy as np

    if workdir:
        from kfpn import load_detector

        return load_detector(workdir), load_detector(workdir, padded=True)
    from kfpn.config.model import ModelConfig
    from kfpn.modeling.detector import inference_model
    from kfpn.modeling.submodels import build_submodels

    config = ModelConfig(norm="gn", score_threshold=0.0)
    submodels = build_submodels(config)
    rng = np.random.default_rng(0)
    for variable in submodels.weights_model.variables:
        if len(variable.shape) == 1:
            scale = variable.path.endswith("gamma")
            variable.assign(rng.uniform(0.5, 1.5, variable.shape) if scale else rng.uniform(-0.3, 0.3, variable.shape))
    return tuple(inference_model(submodels, config, padded) for padded in (False, True))


def images():
    """Returns scenes of the built-in data set, cut or tiled to SIZES."""
    import numpy as np

    from kfpn.data.toy_scenes import scene

    rng = np.random.default_rng(0)
    return [np.tile(scene(rng).image, (2, 2, 1))[:height, :width] for height, width in SIZES]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir")
    options = parser.parse_args()
    import numpy as np

    alone, padded = models(options.workdir)
    batch = np.zeros((len(SIZES), 192, 160, 3), "float32")
    pictures = images()
    for i, picture in enumerate(pictures):
        batch[i, : picture.shape[0], : picture.shape[1]] = picture
    inputs = {"images": batch, "image_sizes": np.array(SIZES, "int32")}
    together = {key: np.array(value) for key, value in padded(inputs, training=False).items()}
    levels = {key: np.array(value) for key, value in padded.get_layer("padded_features")(inputs).items()}
    worst = dict.fromkeys(("boxes", "scores", *levels), 0.0)
    different = 0
    for i, picture in enumerate(pictures):
        image = picture[None].astype("float32")
        detections = {key: np.array(value) for key, value in alone(image, training=False).items()}
        different += int((detections["labels"][0] != together["labels"][i]).sum())
        for key in ("boxes", "scores"):
            worst[key] = max(worst[key], float(np.abs(detections[key][0] - together[key][i]).max()))
        for key, value in alone.get_layer("features")(image).items():
            value = np.array(value)[0]
            there = levels[key][i, : value.shape[0], : value.shape[1]]
            worst[key] = max(worst[key], float(np.abs(value - there).max() / value.std()))
        print(f"{picture.shape[0]} x {picture.shape[1]}: {int(detections['num_detections'][0])} detections")
    print(f"labels that differ: {different}")
    for key, value in worst.items():
        print(f"largest difference of {key}: {value:.1e}")


if __name__ == "__main__":
    main()
