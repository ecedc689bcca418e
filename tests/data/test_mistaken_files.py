import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest
from PIL import Image

from kfpn.data.formats.coco import CocoSource
from kfpn.data.formats.voc_xml import read_tree
from kfpn.data.image import check_image, load_picture
from kfpn.data.mistaken_files import HEAD, mistaken_for


def archive(kind):
    content = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(content, "w") as file:
            file.writestr("a.json", "{}")
    else:
        with tarfile.open(fileobj=content, mode="w") as file:
            file.addfile(tarfile.TarInfo("a.json"))
    return content.getvalue()


FILES = {
    "empty": (b"", "is empty (0 bytes): copy or download it again"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "is a git-lfs pointer, not the file itself: run `git lfs pull`"),
    "annex": (b"/annex/objects/SHA256E-s5--0a.jpg\n", "is a git-annex pointer"),
    "page": (b"\n<!DOCTYPE html>\n<html><title>Sign in</title>", "is a web page, perhaps of a failed download"),
    "bom": (b"\xef\xbb\xbf<HTML>", "is a web page"),
    "xhtml": (b"<?xml version='1.0'?>\n<!-- x -->\n<html xmlns='http://www.w3.org/1999/xhtml'>", "is a web page"),
    "s3": (b"<?xml version='1.0' encoding='UTF-8'?>\n<Error><Code>AccessDenied</Code></Error>", "is a server's error message"),
    "404": (b"404: Not Found", "is a server's error message"),
    "gzip": (gzip.compress(b"{}"), "is a gzip archive: unpack it first"),
    "bzip2": (bz2.compress(b"{}"), "is a bzip2 archive"),
    "xz": (lzma.compress(b"{}"), "is an xz archive"),
    "zip": (archive("zip"), "is a zip archive"),
    "tar": (archive("tar"), "is a tar archive"),
    "zeros": (bytes(4096), "begins with zeros only"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_data_at_all_is_called_by_its_name(kind, tmp_path):
    content, wanted = FILES[kind]
    assert wanted in mistaken_for(content[:HEAD])
    for name in ("a.json", "a.xml", "a.jpg"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"^coco:.*a\.json: (is|begins)") as error:
        CocoSource(tmp_path / "a.json")
    assert wanted in str(error.value)
    with pytest.raises(ValueError, match=r"a\.xml: (is|begins)") as error:
        read_tree(tmp_path / "a.xml")
    assert wanted in str(error.value)
    for image in (content, tmp_path / "a.jpg"):
        with pytest.raises(ValueError, match=r"^(is|begins)") as error:
            check_image(image)
        assert wanted in str(error.value)


@pytest.mark.parametrize(
    "content", [b'{"images": []}', b" \n[1]", b"<annotation/>", b"\xff\xd8\xff\xe0", b"\0{\0}", b"II*\0"]
)
def test_data_are_not_taken_for_anything_else(content):
    assert mistaken_for(content) is None


def test_text_that_is_called_an_image_is_shown():
    with pytest.raises(ValueError, match=r"^is not an image: it is text that begins with 'hello world'"):
        check_image(b"hello world")
    with pytest.raises(ValueError, match=r"^is not an image, or of a kind that Pillow"):
        check_image(b"\x01\x02hello\xff\xfe")


@pytest.mark.parametrize(("kind", "length"), [("JPEG", 3), ("JPEG", 20), ("PNG", 12), ("GIF", 8), ("BMP", 20)])
def test_an_image_whose_first_part_is_damaged_is_called_by_its_kind(kind, length):
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, kind)
    content = file.getvalue()
    damaged = content[:length] + bytes(8) + (content[length + 8 :] if kind == "PNG" else b"")
    with pytest.raises(ValueError, match=f"^(begins as a {kind} file, but is damaged|can't be read as an image)"):
        check_image(damaged)


def test_a_png_without_pixels_is_called_so():
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "PNG")
    content = file.getvalue()
    start, end = content.index(b"IDAT") - 4, content.index(b"IEND") - 4
    without = content[:start] + content[end:]
    with pytest.raises(ValueError, match=r"^is a PNG without pixels"):
        check_image(without)
    with pytest.raises(ValueError, match=r"^im: is a PNG without pixels"):
        load_picture(without, "im")
    with pytest.raises(ValueError, match=r"^can't be read as an image"):
        check_image(content[: start + 20])


def test_xml_with_a_namespace_is_read_and_another_form_is_named(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text('<annotation xmlns="http://x.org/voc"><object><name>cat</name></object></annotation>')
    assert read_tree(path).find("object").findtext("name") == "cat"
    path.write_text('<v:annotation xmlns:v="http://x.org/voc"><v:object/></v:annotation>')
    assert read_tree(path).tag == "annotation"
    path.write_text("<annotations><image><box/></image></annotations>")
    with pytest.raises(
        ValueError, match=r"a\.xml: must be XML in VOC's form, with the root <annotation>, got <annotations>"
    ):
        read_tree(path)
