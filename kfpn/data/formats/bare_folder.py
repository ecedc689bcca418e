"""Finds out what a folder holds: `FOLDER[,SPLIT]`."""

import itertools
from pathlib import Path

from kfpn.data.folder_entries import entries_of, folders_in
from kfpn.data.formats.folder_candidates import Candidate, candidates_in, faults_in
from kfpn.data.formats.place_and_split import SPLIT_OF_WORD, USUAL_WORDS
from kfpn.data.image_checks import NAMED_FAULTS
from kfpn.data.image_endings import images_among
from kfpn.data.opening_warnings import warn_of_data
from kfpn.data.record import Source

LOOKED_FOR = (
    "a data.yaml, a classes.txt with images and labels (YOLO), a .json in COCO's form with its images, _annotations.coco.json or "
    "_annotations.csv in train, valid and test (Roboflow), Annotations/*.xml or XML files beside images (VOC), a .csv of boxes, "
    "JSON files of labelme beside pictures"
)

_DEPTH, _MOST_FOLDERS = 2, 100


def found_data(folder: str | Path) -> Candidate:
    """Finds out what a folder holds.

    Args:
        folder: is looked at first; where nothing is found, each folder in it, and then each folder in these.

    Returns:
        The one data set, with a name of `open_source` for each split.

    Raises:
        ValueError: when there is none, or several; says what was looked for, or how to name each.
    """
    root = Path(folder).expanduser()
    candidates: list[Candidate] = []
    looked_at: list[Path] = []
    places = [root]
    for _ in range(1 + _DEPTH):  # an archive often holds one folder, and that one another
        looked_at += places
        candidates = [candidate for place in places for candidate in candidates_in(place)]
        if candidates:
            break
        places = [path for place in places for path in folders_in(place)][:_MOST_FOLDERS]
    if len(candidates) > 1:
        kinds = {candidate.kind for candidate in candidates}
        same = len(kinds) == len(candidates) and "COCO JSON" in kinds
        hint = "\nForms in one folder usually hold the same objects: take the line with coco: if unsure" if same else ""
        lines = "\n  ".join(candidate.options() for candidate in candidates[:NAMED_FAULTS])
        more = f"\n  ... and {len(candidates) - NAMED_FAULTS} more" if len(candidates) > NAMED_FAULTS else ""
        raise ValueError(
            f"data must be one data set, got {folder}, which can be read in {len(candidates)} ways: write one of\n  {lines}{more}{hint}"
        )
    if not candidates:
        faults = list(itertools.islice((fault for place in looked_at for fault in faults_in(place)), NAMED_FAULTS))
        files = "\n  ".join(["\nIt has files that can't be read as one:", *faults]) if faults else ""
        if not files and images_among(entries_of(root)).files:
            files = ". Draw boxes on the images first: docs/photographs.md says how"
        raise ValueError(f"data must be a data set, got {folder}, {_content_of(root)}: looked for {LOOKED_FOR}{files}")
    return candidates[0]


def _content_of(root: Path) -> str:
    entries = entries_of(root)
    if not entries:
        return "which is an empty folder"
    images = images_among(entries)
    rest = images.passed_over_line()
    return f"which holds {len(images.files)} images{f' and {rest}' if rest else ''}, but no annotations"


def _folder_and_split(place: str) -> tuple[str, str]:
    """Returns the folder and the split that follows a comma, "" without one."""
    if Path(place).expanduser().is_dir():
        return place, ""
    folder, _, named = place.rpartition(",")
    if named not in SPLIT_OF_WORD:
        raise ValueError(f"data must be a folder or FOLDER,SPLIT with a split of {USUAL_WORDS}, got {place!r}")
    return folder, SPLIT_OF_WORD[named]


def name_and_split(place: str, split: str) -> tuple[str, str]:
    """Returns the name of a split of a folder's data and the split, and logs what the folder is read as.

    Args:
        place: FOLDER or FOLDER,SPLIT.
        split: the split where `place` names none. Of a folder that has one split alone, that one.
    """
    folder, named = _folder_and_split(place)
    known = found_data(folder)
    wanted = named or SPLIT_OF_WORD.get(split, split)
    if wanted not in known.names and not named and list(known.names) == ["train"]:
        wanted = "train"
    if wanted not in known.names:
        raise ValueError(
            f"data must have a split {wanted!r}, got {folder} with {', '.join(known.names)} ({known.kind}): write {known.options()}"
        )
    name = known.names[wanted]
    warn_of_data(f"{folder}: read as {known.kind}, {name}; splits: {', '.join(known.names)}")
    return name, wanted


def splits_of(place: str) -> dict[str, str]:
    """Returns the name of each split of a folder's data, or of the one that `place` names, and logs what the folder is read as."""
    folder, named = _folder_and_split(place)
    known = found_data(folder)
    names = {split: name for split, name in known.names.items() if named in ("", split)}
    warn_of_data(f"{folder}: read as {known.kind}, {', '.join(names.values())}")
    return names


def open_place(place: str, split: str = "train", *, masks: bool = False) -> Source:
    """Opens `FOLDER[,SPLIT]`."""
    from kfpn.data.formats import open_source

    return open_source(*name_and_split(place, split), masks=masks)


def validation_data(place: str) -> str | None:
    """Returns the name of the folder's validation split, where it has one and `place` does not name another split."""
    folder, named = _folder_and_split(place)
    return found_data(folder).names.get("validation") if named in ("", "train") else None
