"""Remembers in a run's folder how many images at once its evaluations have memory for, so that no restart dies as the last one did."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kfpn.config.run import Config
from kfpn.data.record import Source
from kfpn.evaluation.images_at_once import ImagesAtOnce, choose_images_at_once, image_bytes, replica_memory
from kfpn.runs.atomic_files import read_json, write_json
from kfpn.training.progress import say, warn_on_write_error

HEAVY = 0.1
"""An evaluation that takes less than this share of the memory is not what a process was killed for."""


class EvaluationMemory:
    """Chooses the images at once of a run's evaluations, and keeps what was learnt about them in a file.

    An error of TensorFlow halves them at once. The system may also kill the process without an error. So the file says that
    an evaluation is under way; the next start that finds it so takes half as many. The file is there only while a heavy
    evaluation is under way, and after one for which memory was not enough. It counts for the same `eval_batch_size` only.

    Args:
        file: where it is kept.
        config: of the run.
        source: of the validation images.
        devices: of the replicas that evaluate.

    Attributes:
        at_once: for `SourcePass`.
    """

    def __init__(self, file: Path, config: Config, source: Source, devices: tuple[str, ...]) -> None:
        self.file = file
        self._asked = config.eval_batch_size
        self.at_once: ImagesAtOnce = choose_images_at_once(source, config, devices=devices)
        self.at_once.tell = self._halved
        self._chosen = self.at_once.images
        self._said = self._chosen >= config.batch_size
        need = image_bytes(source, config, config.batch_size) * self._chosen
        self._heavy = need > HEAVY * replica_memory(devices)
        self._limit_to_kept()

    @contextmanager
    def under_way(self) -> Iterator[ImagesAtOnce]:
        """Marks in the file, for the time of a `with` block, that an evaluation is under way; gives its images at once."""
        if not self._said:
            self._said = True
            now = self.at_once
            say(f"evaluates {now.images} images at once{now.where}; --eval-batch-size sets another number")
        if self._heavy:
            self._write(under_way=True)
        try:
            yield self.at_once
        finally:  # Here ends what ended with an error or a signal, too: it was not killed.
            if self.at_once.images < self._chosen:
                self._write(under_way=False)
            elif self._heavy:
                with warn_on_write_error(self.file):
                    self.file.unlink(missing_ok=True)

    def _halved(self, line: str) -> None:
        say(line)
        self._write(under_way=True)

    def _limit_to_kept(self) -> None:
        """Takes no more images at once than the file says."""
        kept = self._read()
        if kept is None:
            return
        images = int(kept["images"])
        if kept["under_way"] and self._heavy:
            images = max(1, images // 2)
            say(
                f"the last evaluation, of {kept['images']} images at once, was killed, perhaps for want of memory: "
                f"evaluates {images} at once"
            )
            self._said = True
        self.at_once.images = min(self._chosen, images)

    def _read(self) -> dict[str, Any] | None:
        """Returns the file's content; None if it is missing, damaged, or of another `eval_batch_size`."""
        try:
            kept = read_json(self.file)
        except (OSError, ValueError):
            return None
        sound = isinstance(kept, dict) and isinstance(kept.get("images"), int) and kept["images"] > 0
        return kept if sound and "under_way" in kept and kept.get("eval_batch_size") == self._asked else None

    def _write(self, under_way: bool) -> None:
        with warn_on_write_error(self.file):
            write_json(
                self.file, {"eval_batch_size": self._asked, "images": self.at_once.images, "under_way": under_way}
            )
