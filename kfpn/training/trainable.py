"""Makes a Keras model with `compile` and `fit` of a detector, on every backend that trains: TensorFlow, JAX and PyTorch."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from kfpn.config.run import Config, SamplingConfig, from_dict, to_dict
from kfpn.training.drawn_noise import PREFIX
from kfpn.training.fit_arguments import named_arguments, require_no_targets, require_order, taken_data
from kfpn.training.frozen_weights import require_what_trains
from kfpn.training.given_batches import MASKS, NEEDED, as_losses_take_it, require_entries
from kfpn.training.trained_network import TrainedNetwork, config_of, named_data_errors, of_any_backend, real_images
from kfpn.weights.built_detector import policy_of
from kfpn.weights.detector_parts import submodels_of

_NOISE = "samplers"
"""Name of the state of the samplers' noise in a file."""


def trainable(detector: keras.Model, *, seed: int | None = 0, **sampling: Any) -> "TrainableDetector":
    """Returns a Keras model that trains a detector: with `compile`, `fit`, `evaluate`, `train_on_batch` and `save`.

    The model has the detector's own variables, so `detector.predict` gives what the newest weights give.

    Args:
        detector: of `kfpn.build_detector` or `kfpn.load_detector`.
        seed: int, of the samplers' noise, for batches that bring none; None: all batches bring it, as those of `kfpn.dataset` do.
        sampling: fields of `kfpn.SamplingConfig`: which anchors and RoIs the losses see.

    Call:
        A batch of `kfpn.dataset`, or a dict with the same content: images (B, H, W, 3) uint8 or float, RGB, 0..255, zero padded
        below and right; image_sizes (B, 2) int32, their true heights and widths in pixels; gt_boxes (B, G, 4) float32 yxyx pixels;
        gt_labels (B, G) int32, -1 in rows without a box; gt_crowd (B, G) bool; for a mask head gt_has_mask (B, G) bool and
        gt_masks (B, G, 112, 112) uint8, each object's mask over its own box. It may have record_index (B,) int, -1 for images
        that count nothing, and the samplers' noise, noise_rpn (B, N) and noise_roi (B, N + G) float32 in 0..1.

    Returns:
        The model. Its outputs are the losses of each image, {"rpn_class", "rpn_box", "roi_class", "roi_box"} and with a mask head
        "roi_mask": (B,) float32 each; means of them are its metrics, and `loss` is their sum.

    Raises:
        ValueError: if `detector` is no detector or was built for another way of training, a field of `sampling` does not exist or
            has a bad value, or the backend does not train.
    """
    return TrainableDetector(detector, from_dict(SamplingConfig, sampling, "sampling."), seed)


@keras.saving.register_keras_serializable("kfpn")
class TrainableDetector(keras.Model):
    """Trains a detector by Keras' own `fit`, see `kfpn.trainable`.

    Args:
        detector: the detector.
        sampling: which anchors and RoIs the losses see.
        seed: of the samplers' noise; None: batches bring it.

    Attributes:
        detector: the detector that is trained.
        network: computes the losses; `network.submodels` carry the detector's weights, see `kfpn.load_submodels`.
        config: kfpn.Config with the settings of the detector and of its samplers; what belongs to a run has its defaults.
        data_config: kfpn.Config of the batches of `kfpn.dataset` that `fit` was given last; None: it had other ones.
    """

    def __init__(self, detector: keras.Model, sampling: SamplingConfig, seed: int | None = 0, **options: Any):
        policy = policy_of(detector)
        # Boxes keep all their digits: with `autocast` Keras would give them the precision of the policy.
        super().__init__(**{"name": f"trainable_{detector.name}", **options, "dtype": policy, "autocast": False})
        self.config = config_of(detector, sampling)
        self.detector = detector
        self.seed = seed
        parts = submodels_of(detector)
        # Keras must not see the submodels as layers of this model, nor save them: their variables are the detector's.
        self.network = TrainedNetwork(parts, self.config)
        self.noise = None if seed is None else keras.random.SeedGenerator(seed, name="samplers")
        self.means = [keras.metrics.Mean(name=name) for name in self.network.loss_names]
        self.supports_jit = not self.config.masks_on_host  # XLA can't call the host.
        self.data_config: Config | None = None
        self.built = True

    def compile(self, optimizer: Any = "sgd", loss: Any = None, metrics: Any = None, **options: Any) -> None:
        """Configures training as `keras.Model.compile` does; the losses are the detector's own.

        Args:
            optimizer: any optimizer of Keras, or its name.
            loss, metrics: None.
            options: `steps_per_execution`, `jit_compile`, `run_eagerly` and `auto_scale_loss`.

        Raises:
            ValueError: for a loss or a metric.
        """
        given = {"loss": loss, "metrics": metrics, **options}
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if given.get(name) is not None:
                raise ValueError(
                    f"{name} must be left out, got {given[name]!r}: a detector has losses of its own, and they are the metrics; "
                    "kfpn.callbacks.CocoAP measures AP"
                )
        super().compile(optimizer=optimizer, **options)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a model from a file as the saved one was, so that it goes on from there."""
        self.compile(**keras.saving.deserialize_keras_object(of_any_backend(config)))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, *arguments: Any, **options: Any) -> Any:
        """Trains as `keras.Model.fit` does; a detector whose classes were never named takes the names of the data.

        Args:
            x: batches of `kfpn.dataset`, or any data of Keras that give batches as `kfpn.trainable` describes them.
            arguments, options: those of `keras.Model.fit`.

        Raises:
            ValueError: if batches of `kfpn.dataset` have other classes than the detector, or another `val_share` to evaluate on than
                to train on, an argument or a batch can't be used, an image can't be read, or all layers are frozen. Frozen layers with
                random weights are warned of.
        """
        given = named_arguments("fit", self, x, *arguments, **options)
        require_order(given.get("callbacks"))
        require_what_trains(self.detector)
        self.data_config = getattr(x, "config", None)
        given |= taken_data(self.detector, given, "x", "validation_data")
        if self.data_config is not None:
            given.setdefault("shuffle", False)  # The batches have an order of their own, a new one each epoch.
        with named_data_errors():
            return super().fit(**given)

    def evaluate(self, x: Any = None, *arguments: Any, **options: Any) -> Any:
        """Measures the losses as `keras.Model.evaluate` does; `kfpn.evaluate` and `kfpn.callbacks.CocoAP` measure AP.

        Args:
            x, arguments, options: as for `fit`.

        Raises:
            ValueError: as `fit`.
        """
        given = named_arguments("evaluate", self, x, *arguments, **options)
        given |= taken_data(self.detector, given, "x")
        with named_data_errors():
            return super().evaluate(**given)

    def train_on_batch(self, x: Any, *arguments: Any, **options: Any) -> Any:
        """Trains on one batch as `keras.Model.train_on_batch` does; raises what `fit` raises."""
        given = named_arguments("train_on_batch", self, x, *arguments, **options)
        return super().train_on_batch(**(given | taken_data(self.detector, given, "x")))

    def __call__(self, batch: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Returns the losses of each image of a batch, see `kfpn.trainable`.

        Raises:
            ValueError: if the batch lacks something. It is raised here, because Keras adds pages to what `call` raises.
        """
        self._checked_names(batch)
        return super().__call__(batch, *arguments, **options)

    def call(self, batch: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Returns the losses of each image of a batch, see `kfpn.trainable`."""
        inputs, noise = self._split(batch)
        return self.network.losses(inputs, noise, bool(training))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Returns the sum of the mean losses, and moves the metrics.

        Args:
            x: the batch.
            y_pred: the losses of each image, of `call`.
            y, sample_weight: None, else they are refused: what a batch says stands in `x`.
            training: not used.
        """
        require_no_targets({"y": y, "sample_weight": sample_weight})
        real = real_images(x, y_pred)
        count = ops.sum(real)
        total = 0.0
        for mean in self.means:
            value = ops.sum(ops.where(real > 0.0, y_pred[mean.name], 0.0)) / ops.maximum(count, 1.0)
            mean.update_state(value, sample_weight=count)
            total = total + value
        return total + sum(ops.sum(loss) for loss in self.losses)

    def get_metrics_result(self) -> dict[str, Any]:
        """Returns `loss` and its parts: means over the images since the metrics were reset, without those that count nothing."""
        results = super().get_metrics_result()
        if not self.losses:
            results["loss"] = sum(mean.result() for mean in self.means)
        return results

    def get_config(self) -> dict[str, Any]:
        """Returns what the model is made of: the detector, the sampling, the seed."""
        detector = keras.saving.serialize_keras_object(self.detector)
        return {
            "name": self.name, "detector": detector, "sampling": to_dict(self.config.sampling), "seed": self.seed,
            "trainable": self.trainable,
        }  # fmt: skip

    def save_own_variables(self, store: Any) -> None:
        """Saves how far the samplers' noise was drawn, which Keras leaves out: a model from a file goes on with new numbers."""
        super().save_own_variables(store)
        if self.noise is not None:
            store[_NOISE] = ops.convert_to_numpy(self.noise.state)

    def load_own_variables(self, store: Any) -> None:
        """Goes on where the noise of the saved model ended."""
        own = {name: store[name] for name in store.keys()}  # noqa: SIM118 (a store of Keras is no dict)
        state = own.pop(_NOISE, None)
        super().load_own_variables(own)
        if self.noise is not None and state is not None:
            self.noise.state.assign(state)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "TrainableDetector":
        """Makes the model of a configuration."""
        options = dict(config)
        detector = keras.saving.deserialize_keras_object(options.pop("detector"), custom_objects=custom_objects)
        return cls(detector, from_dict(SamplingConfig, options.pop("sampling")), **options)

    def _split(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns a batch without its noise, and its noise, drawn here where it brings none; raises what `_checked_names` raises."""
        given = self._checked_names(batch)
        batch = as_losses_take_it(batch)
        inputs = {name: batch[name] for name in self._needed}
        if given:
            return inputs, {name: ops.cast(batch[f"{PREFIX}{name}"], "float32") for name in given}
        size, shapes = ops.shape(batch["images"])[0], self._shapes_of_noise(batch)
        return inputs, {
            name: keras.random.uniform((size, *shape), dtype="float32", seed=self.noise)
            for name, shape in shapes.items()
        }

    @property
    def _needed(self) -> tuple[str, ...]:
        return (*NEEDED, *(("gt_has_mask", MASKS[self.config.masks_on_host]) if self.config.model.mask else ()))

    def _shapes_of_noise(self, batch: Mapping[str, Any]) -> dict[str, tuple]:
        _, height, width, _ = ops.shape(batch["images"])
        return self.network.noise_shapes(self.config, height, width, ops.shape(batch["gt_boxes"])[1])

    def _checked_names(self, batch: Any) -> list[str]:
        """Returns the samplers whose noise a batch brings: all or none.

        Raises:
            ValueError: if something is missing, or the noise is for other settings or another canvas; where sides are not known when
                the step is traced, the latter can't be checked.
        """
        require_entries(batch, self._needed)
        shapes = self._shapes_of_noise(batch)
        given = [name for name in shapes if f"{PREFIX}{name}" in batch]
        lacking = [f"{PREFIX}{name}" for name in shapes if name not in given]
        if given and lacking:
            raise ValueError(
                f"batch must have {lacking[0]} beside {PREFIX}{given[0]}, got the latter alone: give both or none"
            )
        if lacking and self.noise is None:
            raise ValueError(
                f"batch must have {' and '.join(lacking)}, got none: with seed None no noise is drawn; take batches of kfpn.dataset, "
                "or give kfpn.trainable a seed"
            )
        for name in given:
            got, wanted = batch[f"{PREFIX}{name}"].shape[1], shapes[name][0]
            if isinstance(wanted, int) and got is not None and got != wanted:
                raise ValueError(
                    f"{PREFIX}{name} must have {wanted} values an image, got {got}: the batch was made for other settings of the "
                    "detector (anchors, levels) or for another canvas"
                )
        return given
