"""Lists trained weights that others have published, and downloads them with a check of their hashes."""

import dataclasses
import difflib
import os
import shutil
import tempfile
from pathlib import Path

from kfpn.config.model import network_name
from kfpn.weights.formats.file_formats import digest

BSD = "BSD-3-Clause (torchvision's; the data sets have terms of their own)"
CC = "CC BY-SA 3.0"
MIT = "MIT"
Known = tuple[str | None, int | None]


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Weights that others have published.

    Attributes:
        name: kfpn's name for them, `source:model`.
        url: the file's address.
        sha256: 64 hexadecimal digits, or the first 8 if only these are known; None: not known.
        box_ap: box AP on COCO val2017 in percent, as the makers give it; None for a classifier.
        licence: of the weights, as the makers give it.
        size: bytes; None: not known.
        what: one line: the network, and the data that it was trained on.
        md5: 32 hexadecimal digits, or the first ones if only these are known; None: not known.
        mask_ap: mask AP on COCO val2017 in percent, as the makers give it; None: without masks.
        cascade: whether it is a Cascade R-CNN.
    """

    name: str
    url: str
    sha256: str | None
    box_ap: float | None
    licence: str
    size: int | None
    what: str
    md5: str | None = None
    mask_ap: float | None = None
    cascade: bool = False

    @property
    def file_name(self) -> str:
        """Returns the file's name in the cache, made of the entry's name: files of different makers may have one name."""
        return self.name.replace(":", "_") + Path(self.url).suffix


def _torchvision(
    name: str, file: str, sha256: str, size: int | None, box_ap: float | None = None, mask_ap: float | None = None
) -> Pretrained:
    what = f"{network_name(mask_ap is not None)} R-50-FPN, COCO train2017, 91 classes"
    if box_ap is None:
        what = "ResNet, ImageNet-1k, " + name[-2:].upper()
    url = f"https://download.pytorch.org/models/{file}"
    return Pretrained(f"torchvision:{name}", url, sha256, box_ap, BSD, size, what, mask_ap=mask_ap)


def _detectron2(
    name: str, run: str, md5: str, box_ap: float, mask_ap: float | None = None, *, known: Known = (None, None)
) -> Pretrained:
    """Returns an entry of detectron2's zoo; `known` is the SHA-256 and the size of its file."""
    cascade = name.startswith("cascade_")
    task = "Misc" if cascade else "COCO-Detection" if mask_ap is None else "COCO-InstanceSegmentation"
    url = f"https://dl.fbaipublicfiles.com/detectron2/{task}/{name}/{run}/model_final_{md5}.pkl"
    what = f"{network_name(mask_ap is not None, cascade)} {name[name.index('R_') :].replace('_', '-')}, COCO train2017"
    return Pretrained(f"detectron2:{name}", url, known[0], box_ap, CC, known[1], what, md5, mask_ap, cascade)


def _msra(name: str) -> Pretrained:
    url = f"https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/{name}.pkl"
    return Pretrained(f"detectron2:{name}", url, None, None, CC, None, f"ResNet {name} of MSRA, ImageNet-1k")


def _keras(name: str, md5: str, sha256: str | None, size: int) -> Pretrained:
    root = "https://storage.googleapis.com/tensorflow/keras-applications/resnet"
    url = f"{root}/{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return Pretrained(
        f"keras:{name}", url, sha256, None, MIT, size, "ResNet of MSRA, ImageNet-1k, without its top", md5
    )


# Where the hashes, sizes and licences come from:
# - torchvision: each file's name has the first 8 digits of its SHA-256, which torch.hub itself checks. All 64 digits come
#   from public repositories that downloaded the files, from at least two that do not depend on each other. Of
#   resnet152-f82ba261 and maskrcnn_resnet50_fpn only the first 8 digits were found. The sizes come from the same places.
# - detectron2: MODEL_ZOO.md gives the box and mask APs and the licence. It says that a file's name has the first 6 digits of its MD5,
#   which is enough to find damage, but not forgery. The one SHA-256 agrees between a git-lfs pointer, which also has the
#   size, and the install script of CompressAI-Vision. No hashes of were found.
# - keras.applications: the MD5s are those in keras/src/applications/resnet.py. The SHA-256 and the size of resnet50 agree
#   between a git-lfs pointer and a repository that checks for them. The other sizes are those that Keras prints when it
#   downloads. The documentation of keras.applications says that the weights were ported from Kaiming He's, under the MIT
#   licence.
TABLE = (
    _torchvision(
        "fasterrcnn_resnet50_fpn_coco",
        "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
        "258fb6c638b15964ddcdd1ae0748c5eef1be9e732750120cc857feed3faac384",
        167502836,
        37.0,
    ),
    _torchvision("maskrcnn_resnet50_fpn_coco", "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", "bf2d0c1e", None, 37.9, 34.6),
    _torchvision(
        "resnet18_imagenet1k_v1",
        "resnet18-f37072fd.pth",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        46830571,
    ),
    _torchvision(
        "resnet34_imagenet1k_v1",
        "resnet34-b627a593.pth",
        "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
        87319819,
    ),
    _torchvision(
        "resnet50_imagenet1k_v1",
        "resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        102530333,
    ),
    _torchvision(
        "resnet50_imagenet1k_v2",
        "resnet50-11ad3fa6.pth",
        "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
        102540417,
    ),
    _torchvision(
        "resnet101_imagenet1k_v1",
        "resnet101-63fe2227.pth",
        "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
        None,
    ),
    _torchvision(
        "resnet101_imagenet1k_v2",
        "resnet101-cd907fc2.pth",
        "cd907fc2a0de2292b2ba2b27d2216bc672d84632d1cf20058d01c0c03b5e020e",
        None,
    ),
    _torchvision(
        "resnet152_imagenet1k_v1",
        "resnet152-394f9c45.pth",
        "394f9c45966e3651a89bbb78a48410a6755854ce4a5ab64927cf1c7247f85e58",
        None,
    ),
    _torchvision("resnet152_imagenet1k_v2", "resnet152-f82ba261.pth", "f82ba261", None),
    _detectron2("faster_rcnn_R_50_FPN_1x", "137257794", "b275ba", 37.9),
    _detectron2(
        "faster_rcnn_R_50_FPN_3x",
        "137849458",
        "280758",
        40.2,
        known=("3c25caca37baabbff3e22cc9eb0923db165a0c18b867871a3bf3570bac9b7ef0", 167266879),
    ),
    _detectron2("faster_rcnn_R_101_FPN_3x", "137851257", "f6e8b1", 42.0),
    _detectron2("mask_rcnn_R_50_FPN_1x", "137260431", "a54504", 38.6, 35.2),
    _detectron2("mask_rcnn_R_50_FPN_3x", "137849600", "f10217", 41.0, 37.2),
    _detectron2("mask_rcnn_R_101_FPN_3x", "138205316", "a3ec72", 42.9, 38.6),
    _detectron2("cascade_mask_rcnn_R_50_FPN_1x", "138602847", "e9d89b", 42.1, 36.4),
    _detectron2("cascade_mask_rcnn_R_50_FPN_3x", "144998488", "480dd8", 44.3, 38.5),
    _msra("R-50"),
    _msra("R-101"),
    _keras(
        "resnet50",
        "4d473c1dd8becc155b73f8504c6f6626",
        "66c8b43daff3fcc15bc4f30e3d2a167e21a14d9c9598a5394e5516471f4af504",
        94765736,
    ),
    _keras("resnet101", "88cf7a10940856eca736dc7b7e228a21", None, 171446536),
    _keras("resnet152", "ee4c566cf9a93f14d82f913c2dc6dd0c", None, 234698864),
)


def list_pretrained() -> tuple[Pretrained, ...]:
    """Returns the entries of all published weights that kfpn knows."""
    return TABLE


def find_pretrained(name: str) -> Pretrained:
    """Returns the entry of a name.

    Args:
        name: as in `list_pretrained()`.

    Raises:
        ValueError: if there is none; the message suggests the most similar name.
    """
    names = {known.name: known for known in TABLE}
    if name in names:
        return names[name]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
    raise ValueError(f"name must be that of a known checkpoint, got {name!r}; {hint}")


def fetch(name: str, folder: str | Path | None = None) -> Path:
    """Downloads published weights, unless they are in the cache already, and checks their hash.

    Args:
        name: as in `list_pretrained()`.
        folder: the cache; None: `kfpn` in Keras' cache ($KERAS_HOME, else ~/.keras).

    Returns:
        The file's path.

    Raises:
        ValueError: if the name is not known, the download fails, or another file came than the expected one.
    """
    known = find_pretrained(name)
    folder = download_folder() if folder is None else Path(folder).expanduser()
    path = folder / known.file_name
    difference = file_difference(known, path) if path.exists() else None
    if path.exists() and difference is None:
        return path
    wrong_file = f"\n{path} is there, but {difference}" if difference else ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The download goes to a folder beside the target, so that a partial or wrong file never has the target's name.
        part = Path(tempfile.mkdtemp(prefix=".download-", dir=folder))
    except OSError as error:
        raise ValueError(f"folder must be writable, got {folder} ({error.strerror})") from error
    try:
        _download(known, part / path.name, path, wrong_file)
        os.replace(part / path.name, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if known.sha256 is None and known.md5 is None:
        print(f"kfpn: no hash of {known.name} is known; the SHA-256 of what came is {digest(path, 'sha256')}")
    return path


def download_folder() -> Path:
    """Returns the folder that downloads are kept in: `kfpn` in Keras' cache ($KERAS_HOME, else ~/.keras)."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "kfpn"


def _download(known: Pretrained, part: Path, path: Path, wrong_file: str) -> None:
    # Keras is imported here, so that `kfpn list-pretrained` answers at once.
    import keras

    size = "" if known.size is None else f" ({known.size} bytes)"
    try:
        keras.utils.get_file(part.name, known.url, cache_dir=str(part.parent), cache_subdir="")
    # Keras raises a bare Exception for an error of urllib's.
    except Exception as error:
        raise ValueError(
            f"{known.name}: downloading {known.url} failed: {error}\n"
            f"Without a network put the file{size} at {path}{wrong_file}"
        ) from error
    if difference := file_difference(known, part):
        raise ValueError(
            f"{known.name}: {known.url} is not the file that was expected, and was removed: it {difference}"
        )


def file_difference(known: Pretrained, path: Path) -> str | None:
    """Tells how a file differs from the entry's size and hashes, in the predicate of a sentence; None: it does not."""
    if known.size is not None and path.stat().st_size != known.size:
        return f"has {path.stat().st_size} bytes, expected {known.size}"
    for algorithm, expected in (("sha256", known.sha256), ("md5", known.md5)):
        if expected is not None and not (got := digest(path, algorithm)).startswith(expected):
            begins = "" if len(got) == len(expected) else "one that begins with "
            return f"has the {algorithm} {got}, expected {begins}{expected}"
    return None
