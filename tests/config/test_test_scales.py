import pytest

from kfpn.config.run import InputConfig
from kfpn.config.test_scales import checked_scales, parse_scales, scaled_input


@pytest.mark.parametrize(
    ("text", "scales"),
    [("480,640,800", (480, 640, 800)), ("64", (64,)), ("800, 480", (800, 480)), (None, ())],
)
def test_scales_are_read_in_the_order_they_are_written(text, scales):
    assert parse_scales(text) == scales


@pytest.mark.parametrize("text", ["", "480,", "480;640", "480 640", "4e2", "480.0", "-480", "4_80", "٤٨٠", "big"])
def test_text_that_is_not_whole_numbers_is_refused_and_quoted(text):
    with pytest.raises(ValueError, match=r"^scales must be whole numbers separated by commas") as error:
        parse_scales(text)
    assert str(error.value).endswith(f"like 480,640,800, got {text!r}")


def test_scales_must_be_at_least_32_and_differ():
    with pytest.raises(ValueError, match=r"^scales must be integers of at least 32 .*, got 480,31$"):
        parse_scales("480,31")
    with pytest.raises(ValueError, match=r"^scales must be integers of at least 32 .*, got 480.0$"):
        checked_scales([480.0])
    with pytest.raises(ValueError, match=r"^scales must differ from each other, got 480,640,480$"):
        parse_scales("480,640,480")


def test_the_long_side_is_scaled_by_the_factor_of_the_short_side():
    coco = InputConfig(short_side=800, long_side=1333, divisor=64)
    scaled = scaled_input(coco, 480)
    assert (scaled.short_side, scaled.long_side, scaled.divisor) == (480, 800, 64)  # 1333 * 480 / 800 = 799.8
    assert scaled_input(coco, 800) == coco
    square = scaled_input(InputConfig(short_side=128, long_side=128), 33)
    assert (square.short_side, square.long_side) == (33, 33)


def test_a_scale_below_the_sizes_of_training_is_no_error():
    drawn = InputConfig(short_side=800, long_side=1333, train_short_sides=(640, 800))
    assert scaled_input(drawn, 100) == InputConfig(short_side=100, long_side=167)
