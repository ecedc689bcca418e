"""Writes the model card of a shared detector: what it is and how it is used, with the fields that Hugging Face reads."""

from collections.abc import Sequence

from kfpn.config.model import network_name
from kfpn.config.run import Config

CARD = "README.md"
"""The file of the card in the folder of a detector."""


def model_card(config: Config, class_names: Sequence[str], title: str, description: str = "") -> str:
    """Returns the text of a model card, Markdown behind a header of YAML.

    Args:
        config: of the detector.
        class_names: the name of each label.
        title: of the card.
        description: what the card says first; may be empty.
    """
    model, rule = config.model, config.input
    kind = network_name(model.mask, model.cascade)
    tags = ["keras", "object-detection", *(["instance-segmentation"] if model.mask else [])]
    return "\n".join(
        [
            "---", "library_name: kfpn", "pipeline_tag: object-detection", "tags:", *(f"- {tag}" for tag in tags), "---", "",
            f"# {title}", "", *([description.strip(), ""] if description.strip() else []),
            f"A {kind} with a Feature Pyramid Network, in Keras 3.", "",
            "| | |", "|---|---|",
            f"| backbone, pyramid | {_in_cell(model.backbone)}, {model.pyramid} |",
            f"| images | RGB, 0..255, resized to a short side of {rule.short_side} and a long side of at most {rule.long_side} pixels |",
            f"| classes | {len(class_names)}: {', '.join(map(_in_cell, class_names))} |", "",
            "```python", "import kfpn", "",
            'detector = kfpn.load_detector("PATH")  # this folder, or "hf://USER/NAME"',
            '(detections,) = kfpn.predict(detector, "photo.jpg")',
            "print(detections.names, detections.scores, detections.boxes)", "```", "",
        ]
    )  # fmt: skip


def _in_cell(text: str) -> str:
    """Returns a text as a cell of a table takes it: on one line, without a bar that would end the cell."""
    return " ".join(text.split()).replace("|", "\\|")
