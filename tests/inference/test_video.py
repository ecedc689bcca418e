"""Reads and writes small videos: upright, at their times, and as far as a damaged file goes."""

import struct
from fractions import Fraction

import numpy as np
import pytest

from kfpn.data.decode_limits import decoding_at_most
from kfpn.inference import video_writer
from kfpn.inference.video_reader import EndedEarly, is_video_name, read_frames
from kfpn.inference.video_writer import VideoWriter

av = pytest.importorskip("av", reason="needs PyAV, the extra video")

HEIGHT, WIDTH, RATE = 48, 64, 10


def picture(number):
    """Returns a gray picture with a red corner at the top left, and a blue square that moves to the right."""
    pixels = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    pixels[:12, :12] = (255, 0, 0)
    pixels[24:36, number : number + 12] = (0, 0, 255)
    return pixels


def encode(path, count=20, **options):
    """Writes a video of `count` pictures, 10 a second, with a key frame at each fifth."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264" if path.suffix != ".avi" else "mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.gop_size = WIDTH, HEIGHT, "yuv420p", 5
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Returns a folder with the clip as MP4 whose index stands first, and as Matroska."""
    folder = tmp_path_factory.mktemp("clips")
    encode(folder / "clip.mp4", movflags="faststart")
    encode(folder / "clip.mkv")
    return folder


def read_all(path):
    """Returns the frames of a file, and the text of the error that came after them."""
    frames, said = [], ""
    try:
        frames.extend(read_frames(path))  # keeps what came before an error
    except EndedEarly as error:
        said = str(error)
    return frames, said


def turned(content, rows):
    """Returns an MP4 file whose track has another matrix, as phones write it."""
    start = content.index(b"tkhd") + 4 + 40
    return content[:start] + struct.pack(">9i", *rows) + content[start + 36 :]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_frames_come_in_order_with_their_numbers_and_times(clips, name):
    frames, said = read_all(clips / name)
    assert said == ""
    assert [frame.number for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(20) / RATE, atol=1e-3)
    for number in (0, 13):
        assert np.abs(frames[number].pixels.astype(int) - picture(number)).mean() < 4
    assert (frames[0].facts.rate, frames[0].facts.count) == (RATE, 20)
    assert frames[0].facts.seconds == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [
        ((0, 1 << 16, 0, -1 << 16, 0, 0, HEIGHT << 16, 0, 1 << 30), -1),
        ((-1 << 16, 0, 0, 0, -1 << 16, 0, WIDTH << 16, HEIGHT << 16, 1 << 30), 2),
        ((0, -1 << 16, 0, 1 << 16, 0, 0, 0, WIDTH << 16, 1 << 30), 1),
    ],
)
def test_frames_are_turned_as_players_show_them(clips, tmp_path, matrix, turns):
    path = tmp_path / "turned.mp4"
    path.write_bytes(turned((clips / "clip.mp4").read_bytes(), matrix))
    first = next(read_frames(path))
    expected = np.rot90(picture(0), turns)
    assert first.pixels.shape == expected.shape
    assert np.abs(first.pixels.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_of_a_file_that_is_cut_off_the_beginning_is_kept_and_the_end_is_said(clips, tmp_path, name):
    content, path = (clips / name).read_bytes(), tmp_path / name
    begin = max(content.find(b"mdat"), 0)  # an MP4 of so little consists of its index for the most part
    path.write_bytes(content[: begin + (len(content) - begin) * 7 // 10])
    frames, said = read_all(path)
    assert 4 <= len(frames) < 20
    last = frames[-1]
    assert (
        f"{path}: ended at frame {len(frames) - 1}, at {last.seconds:.1f} of 2.0 seconds; what was read is kept" in said
    )
    assert np.abs(last.pixels.astype(int) - picture(last.number)).mean() < 4


@pytest.mark.parametrize(("first", "last", "seconds"), [(5, 8, 0.0), (3, 6, 1.0)])
def test_parts_that_can_not_be_decoded_are_passed_over_and_counted(clips, tmp_path, first, last, seconds):
    content, path = bytearray((clips / "clip.mp4").read_bytes()), tmp_path / "bad.mp4"
    begin = content.index(b"mdat")
    first, last = (begin + (len(content) - begin) * part // 10 for part in (first, last))
    content[first:last] = np.random.default_rng(0).integers(0, 256, last - first, np.uint8).tobytes()
    path.write_bytes(content)
    frames, said = read_all(path)
    assert 5 <= len(frames) < 20
    assert [frame.number for frame in frames] == list(range(len(frames)))
    assert (frames[0].seconds, frames[-1].seconds) == pytest.approx((seconds, 1.9), abs=1e-3)
    assert "parts could not be decoded and were passed over (" in said
    assert f"it ended at frame {len(frames) - 1}, at 1.9 of 2.0 seconds; what was read is kept" in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"clip\.mp4: is empty \(0 bytes\)"),
        (
            b"no video at all" * 100,
            r"clip\.mp4: can't be read as a video \(Invalid data[^\n]*\): it is damaged, not complete, or no video",
        ),
        (b"version https://git-lfs.github.com/spec/v1\n", r"clip\.mp4: is a git-lfs pointer"),
        (None, r"clip\.mp4: does not exist"),
        ("folder", r"clip\.mp4: is not a file"),
    ],
)
def test_a_file_that_is_no_video_is_named(tmp_path, content, message):
    path = tmp_path / "clip.mp4"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        next(read_frames(path))


def test_a_file_of_sound_alone_and_frames_of_too_many_pixels_are_refused(clips, tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"sound\.mp4: must hold a video, got a file without one"):
        next(read_frames(path))
    with (
        decoding_at_most(WIDTH * HEIGHT - 1),
        pytest.raises(ValueError, match=r"clip\.mp4: is 64 x 48, which are more pixels than the 3,071"),
    ):
        next(read_frames(clips / "clip.mp4"))


def test_a_written_video_has_its_pictures_at_their_times_in_their_colours(tmp_path):
    times = [0.0, 0.1, 0.5, 0.5, 0.9]  # a rate that changes, and a time that comes twice
    odd = [np.concatenate([picture(number), picture(number)[:1]])[:, :-1] for number in range(5)]
    path = tmp_path / "a:b é.mp4"
    video = VideoWriter(path, Fraction(10))
    for pixels, seconds in zip(odd, times, strict=True):
        video.add(pixels, seconds)
    video.add(np.zeros((20, 30, 3), np.uint8), 1.3)  # of another size
    video.close()
    frames, said = read_all(path)
    assert (said, len(frames)) == ("", 6)
    np.testing.assert_allclose([frame.seconds for frame in frames], [*times, 1.3], atol=1e-3)
    assert {frame.pixels.shape for frame in frames} == {(HEIGHT + 2, WIDTH, 3)}
    for frame, pixels in zip(frames[:5], odd, strict=True):
        assert np.abs(frame.pixels[: HEIGHT + 1, : WIDTH - 1].astype(int) - pixels).mean() < 4
    corner = frames[0].pixels[2:8, 2:8].reshape(-1, 3).mean(0)
    assert np.abs(corner - (255, 0, 0)).max() < 8


def test_a_full_disk_is_said_with_the_name_of_the_file(tmp_path):
    path = tmp_path / "full.mp4"
    path.symlink_to("/dev/full")
    video = VideoWriter(path, Fraction(10))
    with pytest.raises(OSError, match=r"^[^\n]*full\.mp4 can't be written: No space left on device$"):  # noqa: PT012  at either
        video.add(picture(0), 0.0)
        video.close()


def test_without_h264_pictures_are_written_as_mpeg4(tmp_path, monkeypatch):
    monkeypatch.setattr(video_writer, "CODECS", ("none", "mpeg4"))
    video = VideoWriter(tmp_path / "a.mp4", Fraction(30000, 1001))
    for number in range(3):
        video.add(picture(number), number * 1001 / 30000)
    video.close()
    frames, said = read_all(tmp_path / "a.mp4")
    assert said == ""
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(3) * 1001 / 30000, atol=1e-5)


def test_videos_are_known_by_their_endings():
    assert is_video_name("a/B.MP4")
    assert is_video_name("clip.webm")
    assert not is_video_name("photo.gif")
