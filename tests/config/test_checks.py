from pathlib import Path

import pytest

from kfpn.config.checks import require_local


@pytest.mark.parametrize(
    "place",
    [
        "gs://bucket/run",
        "https://example.org/a.jpg",
        "a.json,s3://bucket/images",
        "hdfs://x/y",
        Path("gs://bucket/x"),
    ],
)
def test_addresses_are_refused_by_name(place):
    with pytest.raises(ValueError, match=r"output must be a place on this machine, got the address '.*:/.*mount it"):
        require_local("output", place)


@pytest.mark.parametrize(
    "place",
    ["runs/shapes", "/abs/run", "//abs/run", "C:/runs", "coco:/data/a.json", "torchvision:fasterrcnn_resnet50_fpn_coco",
     "a:b/c", Path("/abs//run"), "", None, 3],
)  # fmt: skip
def test_places_on_this_machine_are_left_alone(place):
    require_local("output", place)


def test_a_folder_that_an_older_version_made_of_an_address_can_still_be_named(tmp_path, monkeypatch):
    (tmp_path / "gs:" / "bucket").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    require_local("workdir", Path("gs:/bucket"))
    require_local("workdir", "gs:/bucket")
    with pytest.raises(ValueError, match="gs://bucket"):
        require_local("workdir", "gs://bucket")


@pytest.mark.parametrize("place", ["s3:/b/run", "GS:/b", "a.json,hdfs:/x", "https:/x/a.jpg"])
def test_an_address_that_lost_a_slash_is_none_of_this_machine_either(place):
    with pytest.raises(ValueError, match=r"^workdir must be a place on this machine, got the address"):
        require_local("workdir", place)
