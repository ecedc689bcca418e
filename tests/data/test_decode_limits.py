import io

import numpy as np
import pytest
from PIL import Image

from kfpn.data.decode_limits import MOST_PIXELS, decoding_at_most, scan_limit
from kfpn.data.image import check_image, load_picture, read_header
from kfpn.data.jpeg_header import read_jpeg_header
from kfpn.export.saved_model.request_limits import USUAL_LIMITS


def encoded(kind="JPEG", size=(64, 48), **options):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)).save(
        file, kind, **options
    )
    return file.getvalue()


def with_scans(count):
    """Returns a progressive JPEG whose last scan comes often."""
    content = encoded(progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * count + b"\xff\xd9"


READERS = (read_header, check_image, lambda image: load_picture(image, "it"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_more_pixels_than_are_allowed_are_refused_before_they_are_decoded(kind):
    content = encoded(kind)
    with decoding_at_most(64 * 48):
        assert load_picture(content, "it").shape == (48, 64, 3)
    with (
        decoding_at_most(64 * 48 - 1),
        pytest.raises(ValueError, match=r"^it: is 64 x 48, which are more pixels than the 3,071"),
    ):
        load_picture(content, "it")


def test_a_jpeg_of_very_many_scans_is_refused_by_every_reader(tmp_path):
    slow = with_scans(101)
    (tmp_path / "slow.jpg").write_bytes(slow)
    assert load_picture(slow, "it").shape == (48, 64, 3)  # of a small image they cost little
    with decoding_at_most(64 * 48):
        assert check_image(with_scans(50)).header.width == 64
        for read in READERS:
            for image in (slow, str(tmp_path / "slow.jpg")):
                with pytest.raises(
                    ValueError, match=r"has 1\d\d scans of 64 x 48, together more than the 307,200 pixels"
                ):
                    read(image)


def test_bytes_behind_an_image_of_one_scan_are_no_scans():
    film = encoded() + b"\xff\xda" * 1000
    with decoding_at_most(64 * 48):
        for read in READERS:
            read(film)


def test_the_header_tells_whether_there_are_several_scans():
    assert not read_jpeg_header(encoded()).several_scans
    assert not read_jpeg_header(encoded(quality=95, subsampling=0)).several_scans
    assert read_jpeg_header(encoded(progressive=True)).several_scans
    assert read_jpeg_header(encoded()).length == len(encoded())


def test_a_larger_limit_is_pillows_too_while_it_holds():
    own = Image.MAX_IMAGE_PIXELS
    with decoding_at_most(400_000_000):
        assert Image.MAX_IMAGE_PIXELS == 200_000_000
    assert own == Image.MAX_IMAGE_PIXELS
    for wrong in (0, 2**31):
        with pytest.raises(ValueError, match=r"max_pixels must lie in 1\.\.2147483647"), decoding_at_most(wrong):
            pass


def test_a_served_model_keeps_the_same_limits():
    assert (USUAL_LIMITS.max_pixels, scan_limit(USUAL_LIMITS.max_pixels)) == (MOST_PIXELS, 100 * MOST_PIXELS)
    assert MOST_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
