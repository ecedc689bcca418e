"""Checks what pyproject.toml and the files in docker/ promise: versions, extras, and images that fit the package."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import kfpn
from kfpn.cli import main
from tests.docs.commands import fault_of

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMAGE_FILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
VARIABLE = re.compile(r"\$\{\w+:-([^}]*)\}")
"""A variable of a compose file with its default: ${NAME:-default}."""


def filled(value):
    """Returns a value of a compose file with the defaults of its variables."""
    if isinstance(value, dict):
        return {key: filled(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner) for inner in value]
    return VARIABLE.sub(r"\1", value) if isinstance(value, str) else value


def services_of(name):
    return filled(yaml.safe_load((ROOT / "docker" / name).read_text(encoding="utf-8")))["services"]


def targets():
    return set(re.findall(r"^FROM \S+ AS (\w+)$", IMAGE_FILE, re.MULTILINE))


def test_the_version_stands_in_one_place(capsys):
    assert "version" not in PROJECT
    assert "version" in PROJECT["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", kfpn.__version__)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"kfpn {kfpn.__version__}\n"


def test_changelog_and_citation_are_of_this_version():
    first = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (first[1], citation["version"]) == (kfpn.__version__, kfpn.__version__)


def test_keras_is_a_range_whose_ends_the_page_on_installing_names():
    (keras,) = [one for one in PROJECT["dependencies"] if one.startswith("keras")]
    oldest = re.fullmatch(r"keras>=(\d+\.\d+),<4", keras)
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert f"Keras {oldest[1]}" in page


@pytest.mark.parametrize("extra", sorted(PROJECT["optional-dependencies"]))
def test_each_extra_has_a_row_on_the_page_on_installing(extra):
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `{extra}` \|", page, re.MULTILINE)


def test_an_image_is_built_of_files_that_are_there_and_are_sent_to_docker():
    sent = (ROOT / "docker" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert sent[1] == "*"
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", IMAGE_FILE, re.MULTILINE) for word in line.split()]
    assert set(copied) == {line[1:] for line in sent if line.startswith("!")}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert {PROJECT["readme"], "pyproject.toml", "kfpn"} <= set(copied)


def test_an_image_installs_extras_that_exist_on_a_python_that_kfpn_takes():
    extras = {name for names in re.findall(r'"\.\[([\w,-]+)\]"', IMAGE_FILE) for name in names.split(",")}
    assert {"gpu", "onnx"} <= extras
    assert extras <= set(PROJECT["optional-dependencies"])
    python = re.search(r"^FROM python:3\.(\d+)", IMAGE_FILE, re.MULTILINE)
    assert int(python[1]) >= int(PROJECT["requires-python"].removeprefix(">=3."))


def test_the_services_train_export_and_serve_one_after_the_other():
    services = services_of("compose.yaml")
    assert set(services) == {"train", "export", "serve"}
    before = {name: service.get("depends_on", {}) for name, service in services.items()}
    done = {"condition": "service_completed_successfully"}
    assert before == {"train": {}, "export": {"train": done}, "serve": {"export": done}}
    build = services["train"]["build"]
    assert build["target"] in targets()
    assert (ROOT / "docker" / build["context"] / build["dockerfile"]).is_file()
    assert services["export"]["image"] == services["train"]["image"]


def test_the_services_call_kfpn_as_it_is_and_hand_on_one_another_s_folders():
    services = services_of("compose.yaml")
    train, export = (services[name]["command"] for name in ("train", "export"))
    assert [fault_of(words) for words in (train, export)] == [None, None]
    assert train[train.index("--workdir") + 1] == export[2]
    served = {volume.removesuffix(":ro").rpartition(":")[2]: volume for volume in services["serve"]["volumes"]}
    models, name = export[3].split("/")
    assert list(served) == ["/models"]
    assert served["/models"].split(":")[0] == f"{services['export']['volumes'][0].rpartition(':')[0]}/{models}"
    assert services["serve"]["environment"] == {"MODEL_NAME": name}


def test_on_gpus_the_same_services_take_the_images_for_gpus():
    services, on_gpus = services_of("compose.yaml"), services_of("compose.gpu.yaml")
    assert set(on_gpus) == set(services)
    assert on_gpus["train"]["build"]["target"] in targets()
    assert on_gpus["train"]["image"] == on_gpus["export"]["image"] != services["train"]["image"]
    assert on_gpus["serve"]["image"] == f"{services['serve']['image']}-gpu"
    for service in on_gpus.values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
