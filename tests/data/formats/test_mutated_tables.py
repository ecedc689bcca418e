"""YOLO's yamls, labels and lists, and tables, changed by chance: an error that is one line, or records that are right."""

import random
import signal

import pytest
from PIL import Image

from kfpn.data.formats import open_source
from tests.data.formats.test_hostile import require_usable

FILES = {
    "data.yaml": "path: .\ntrain: images/train\nval: images/val\nnc: 2\nnames:\n  0: cat\n  1: dog\nkpt_shape: [2, 3]\n",
    "labels/train/a.txt": "0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.2 0.2 0.3 0.1\n",
    "train.txt": "images/train/a.png\nimages/train/b.jpg\n",
    "boxes.csv": 'image,x1,y1,x2,y2,class,width,height\nimages/train/a.png,1,2,11,12,cat,40,20\n"images/train/b.jpg",,,,,,,\n',
}
WORDS = (
    "", "nan", "inf", "-1", "1e999", "1.5", "0", "2", "\t", ",", ";", '"', "'", "\0", "\ufeff", "é", "\u2028", "[", "]", "{", "}", ":", "- ",
    "*a", "&a ", "!!python/object:os.system ", "|", "#", "\r", "\r\n", "..", "../", "/", "C:\\", "train", "val", "names", "nc", "path", "0x1",
    "1_0", "٣", "9" * 400, "null", "~", "yes", "? ", "a: b: c", "sep=;", "-0.004", "1.004", "12", "images/train", "data.yaml", "train.txt",
    "~nobody/x", "http://x/y", "<html>", "version https://git-lfs",
)  # fmt: skip
CODECS = ("utf-8",) * 6 + ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "gb18030")
LISTING = ("do not exist", "are not of the size", "can't be used")


def mutated(text, chance):
    for _ in range(chance.choice((1, 1, 2, 4))):
        word, kind = chance.choice(WORDS), chance.randrange(4)
        begin = chance.randrange(len(text) + 1)
        end = min(len(text), begin + chance.choice((0, 1, 3, 10)))
        if kind < 2:
            text = text[:begin] + word * kind + text[end:]
        else:
            separator = chance.choice((" ", "\n", ","))
            parts = text.split(separator)
            place = chance.randrange(len(parts))
            parts[place : place + 1] = [word] if kind == 2 else [parts[place]] * 2
            text = separator.join(parts)
    content = text.encode(chance.choice(CODECS), "replace")
    return content if chance.random() < 0.9 else content[: chance.randrange(len(content) + 1)]


@pytest.mark.parametrize("count", [250, pytest.param(2000, marks=pytest.mark.slow)])
def test_every_changed_file_gives_records_that_are_right_or_an_error_line(tmp_path, count):
    for split in ("train", "val"):
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / "a.txt").write_text("0 .5 .5 .5 .5\n")
        (tmp_path / "images" / split).mkdir(parents=True)
        for name in ("a.png", "b.jpg"):
            Image.new("RGB", (40, 20)).save(tmp_path / "images" / split / name)
    chance = random.Random(count)
    handler = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("hangs"))
    opened, refused = 0, []
    try:
        for _ in range(count):
            changed = chance.choice(list(FILES))
            contents = {name: text.encode() for name, text in FILES.items()} | {
                changed: mutated(FILES[changed], chance)
            }
            if changed == "train.txt":
                contents["data.yaml"] = contents["data.yaml"].replace(b"train: images/train", b"train: train.txt")
            for name, content in contents.items():
                (tmp_path / name).write_bytes(content)
            signal.alarm(20)
            try:
                data = f"csv:{tmp_path}/boxes.csv" if changed == "boxes.csv" else f"yolo:{tmp_path}/data.yaml"
                require_usable(open_source(data, "train", "none"))
                opened += 1
            except ValueError as error:
                refused.append((error, contents[changed]))
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert count / 25 < opened < count
    for error, content in refused:
        assert type(error) is ValueError, content
        assert "\n" not in str(error) or any(word in str(error) for word in LISTING), content
