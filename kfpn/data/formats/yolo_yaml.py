"""Reads the data.yaml of a data set in YOLO's form: its classes and where each split is."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kfpn.data.annotation_checks import AnnotationFaults, require_unique
from kfpn.data.field_values import shown, whole_number
from kfpn.data.formats.place_and_split import SPLIT_OF_WORD, SPLITS
from kfpn.data.text_files import read_text

NO_NAMES = "classes that the yaml counts (nc) but doesn't name, called class_0, class_1 and so on"

_LARGEST = 10_000_000  # bytes: the yaml of a thousand classes has some ten thousand
_LAYOUT = "it holds `train:`, `val:` and `names:`"


@dataclass(frozen=True)
class DataYaml:
    """Holds what a data.yaml says.

    Attributes:
        path: of the file that names the classes.
        folder: from which places are seen.
        class_names: of labels 0 .. K-1.
        root: its `path`, "" where it has none.
        splits: "train", "validation" or "test" -> the folders of images and lists (.txt) that it names, as they are written.
        keypoints: int, numbers of the keypoints in a line, 0 where the objects have none.
    """

    path: Path
    folder: Path
    class_names: tuple[str, ...]
    root: str
    splits: dict[str, list[str]]
    keypoints: int = 0


class _TextLoader(yaml.BaseLoader):
    """Reads all values as the text that they are, so that a class `no` stays `no` and `010` stays `010`."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # a few lines of them stand for a text without end
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            text = key.value if isinstance(key, yaml.ScalarNode) else ""
            if text in seen:
                raise yaml.MarkedYAMLError(problem=f"{shown(text, 60)} is there twice", problem_mark=key.start_mark)
            seen.add(text)
        return super().construct_mapping(node, deep)


def parsed_yaml(path: Path) -> Any:
    """Returns the content of a YAML file: dicts and lists of text.

    Raises:
        ValueError: when it can't be read or is no YAML; names the file and the line.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise ValueError(f"{path}: must be a small text that names classes and folders, got {size:,} bytes")
        return yaml.load(read_text(path), _TextLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise ValueError(f"{path}: is not YAML: {place}{error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        why = "is nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ValueError(f"{path}: is not YAML: {why[:200]}") from error
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error.strerror}") from error


def is_data_yaml(content: Any) -> bool:
    """Tells whether the content of a YAML file describes a data set: it names classes and images."""
    return isinstance(content, dict) and bool({"names", "nc"} & content.keys()) and any(map(content.get, SPLIT_OF_WORD))


def read_data_yaml(path: Path, faults: AnnotationFaults) -> DataYaml:
    """Reads and checks a data.yaml.

    Args:
        path: of the file.
        faults: its `source` is what messages call the data set; counts classes without names.

    Raises:
        ValueError: when it is missing, is no YAML or lacks what is needed; says what.
    """
    if not path.is_file():
        near = sorted(str(file) for file in path.parent.glob("*.y*ml"))[:5] if path.parent.is_dir() else []
        hint = f"; that folder holds {', '.join(near)}" if near else ""
        raise ValueError(f"{faults.source}: {path} does not exist (looked in {path.parent.resolve()}){hint}")
    content = parsed_yaml(path)
    if not isinstance(content, dict):
        got = "an empty file" if content in (None, "") else shown(content, 60)
        raise ValueError(f"{path}: must be the data.yaml of a YOLO data set, got {got}: {_LAYOUT}")
    names = _class_names(content, path, faults)
    splits = {split: entries for split in SPLITS if (entries := _entries(content, split, path))}
    if not splits:
        keys = ", ".join(shown(key, 40) for key in list(content)[:10])
        raise ValueError(f"{path}: must say where the images are, got the keys {keys}: {_LAYOUT}")
    root = content.get("path", "")
    if not isinstance(root, str):
        raise ValueError(f"{path}: path must be a folder, got {shown(root, 60)}")
    return DataYaml(path, path.parent, names, root.strip(), splits, _keypoints(content.get("kpt_shape"), path))


def _entries(content: dict, split: str, path: Path) -> list[str]:
    keys = [key for key in SPLITS[split] if content.get(key) not in (None, "", "null", "~", [])]
    if len(keys) > 1:
        raise ValueError(f"{path}: must have one of {' and '.join(keys)}, got both: remove one")
    if not keys:
        return []
    value = content[keys[0]]
    entries = value if isinstance(value, list) else [value]
    for entry in entries:
        if not isinstance(entry, str) or not entry.strip() or "\0" in entry:
            raise ValueError(
                f"{path}: {keys[0]} must be a folder, a list of folders or a .txt list, got {shown(entry, 60)}"
            )
    return [entry.strip() for entry in entries]


def _class_names(content: dict, path: Path, faults: AnnotationFaults) -> tuple[str, ...]:
    count = whole_number(content["nc"]) if "nc" in content else None
    if "nc" in content and (count is None or not 0 < count < 100_000):
        raise ValueError(f"{path}: nc must be the number of classes, got {shown(content['nc'], 40)}")
    names = content.get("names")
    if isinstance(names, dict):
        names = _names_in_order(names, path)
    if names in (None, "", []) and count is not None:
        faults.add(NO_NAMES, str(path), count)
        names = [f"class_{label}" for label in range(count)]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{path}: must have `names:`, the classes in their order, got {shown(names, 60)}")
    for label, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise ValueError(f"{path}: names[{label}] must be text, got {shown(name, 60)}")
    if count is not None and count != len(names):
        raise ValueError(f"{path}: names must be as many as nc says, {count}, got {len(names)}: correct nc or names")
    require_unique(names, "names", str(path))
    return tuple(names)


def _names_in_order(names: dict, path: Path) -> list[Any]:
    by_label: dict[int, Any] = {}
    for key, name in names.items():
        label = whole_number(key)
        if label is None or label in by_label:
            raise ValueError(f"{path}: names must number each class once, got the key {shown(key, 40)}")
        by_label[label] = name
    missing = next((label for label in range(len(by_label)) if label not in by_label), None)
    if missing is not None:
        raise ValueError(f"{path}: names must number the classes from 0 without a gap, got none for {missing}")
    return [by_label[label] for label in range(len(by_label))]


def _keypoints(shape: Any, path: Path) -> int:
    if shape in (None, "", "null", "~"):
        return 0
    sides = [whole_number(side) for side in shape] if isinstance(shape, list) else []
    if len(sides) != 2 or sides[0] is None or sides[1] not in (2, 3) or not 0 < sides[0] < 10_000:
        raise ValueError(f"{path}: kpt_shape must be [number of keypoints, 2 or 3], got {shown(shape, 60)}")
    return sides[0] * sides[1]
