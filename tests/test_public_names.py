"""Checks that every public name is one of `kfpn` itself, and that the module paths of version 0.1.0 still import."""

import importlib
import inspect
import re
import subprocess
import sys
import unittest.mock
import warnings
from pathlib import Path

import pytest

import kfpn
from kfpn import renamed

ROOT = Path(__file__).resolve().parents[1]

SHOWN = (
    "kfpn.cli.main",
    "kfpn.config.Config",
    "kfpn.config.ModelConfig",
    "kfpn.data.image.load_picture",
    "kfpn.data.pipeline.prepare_image",
    "kfpn.data.record.Record",
    "kfpn.data.sources.IterableSource",
    "kfpn.data.sources.open_source",
    "kfpn.engine.train.train",
    "kfpn.engine.trained.load_submodels",
    "kfpn.engine.workdir.Workdir",
    "kfpn.evaluation.evaluate_source",
    "kfpn.evaluation.proposals.evaluate_proposals",
    "kfpn.export.onnx.export_onnx",
    "kfpn.export.saved_model.export_saved_model",
    "kfpn.image_pyramid.ImagePyramid",
    "kfpn.model_config.ModelConfig",
    "kfpn.modeling.detector.build_detector",
    "kfpn.modeling.fixed_proposals.proposals_model",
    "kfpn.pyramid_maps.opened_model",
    "kfpn.pyramid_maps.view_image",
    "kfpn.visualize_pyramid.draw_page",
)
"""The names that README and docs of version 0.1.0 imported."""


@pytest.mark.parametrize("name", sorted(set(kfpn.__all__) - {"__version__"}))
def test_every_public_name_exists_is_listed_and_has_a_docstring(name):
    value = getattr(kfpn, name)
    assert name in dir(kfpn)
    assert inspect.getdoc(value)
    assert value.__name__.rpartition(".")[2] == name  # `kfpn.callbacks` is a module.


def test_the_error_for_an_unknown_name_lists_the_known_names():
    with pytest.raises(AttributeError, match=r"no attribute 'build'.*build_detector"):
        kfpn.build  # noqa: B018


def test_importing_kfpn_imports_neither_keras_nor_numpy():
    code = "import sys, kfpn; print(sorted({'keras', 'numpy', 'tensorflow', 'tyro', 'PIL'} & set(sys.modules)), 'train' in dir(kfpn))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[] True\n"


@pytest.mark.parametrize("path", SHOWN)
def test_the_names_that_the_documents_of_0_1_0_imported_still_import(path):
    module, _, name = path.rpartition(".")
    sys.modules.pop(module, None) if module in renamed.MODULES else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = getattr(importlib.import_module(module), name)
    assert callable(value)
    texts = [str(warning.message) for warning in caught if warning.category is FutureWarning]
    assert bool(texts) == (module in renamed.MODULES)
    assert all(module in text and renamed.MODULES[module] in text for text in texts)


@pytest.mark.parametrize("old", sorted(renamed.MODULES))
def test_every_old_module_path_has_the_names_of_its_new_module(old):
    sys.modules.pop(old, None)
    with pytest.warns(FutureWarning, match=re.escape(f"{old} is now {renamed.MODULES[old]}")):
        module = importlib.import_module(old)
    new = importlib.import_module(renamed.MODULES[old])
    names = [name for name in vars(new) if not name.startswith("_")]
    assert all(getattr(module, name) is getattr(new, name) for name in names)


@pytest.mark.parametrize("old", sorted(renamed.NAMES))
def test_every_old_name_is_the_object_of_its_new_name(old):
    module, _, name = old.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        value = getattr(importlib.import_module(module), name)
    new_module, _, new_name = renamed.NAMES[old].rpartition(".")
    assert value is getattr(importlib.import_module(new_module), new_name)


def old_module(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return importlib.import_module(path)


def test_a_star_import_of_an_old_path_gives_all_its_names():
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        exec("from kfpn.presets import *", names)
    assert {"PRESETS", "preset"} <= set(names)
    assert "preset" in dir(old_module("kfpn.presets"))


def test_what_is_replaced_at_an_old_path_is_replaced_at_the_new_one(monkeypatch):
    from kfpn.ops import boxes

    before = boxes.iou
    monkeypatch.setattr(old_module("kfpn.boxes"), "iou", "another")
    assert boxes.iou == "another"
    monkeypatch.undo()
    assert boxes.iou is before
    with unittest.mock.patch("kfpn.boxes.iou", "a third"):
        assert boxes.iou == "a third"
    assert boxes.iou is before


def test_a_name_that_is_gone_says_where_its_module_is():
    with pytest.raises(AttributeError, match=r"kfpn\.boxes is now kfpn\.ops\.boxes, which has no 'RPN_WEIGHTS'"):
        old_module("kfpn.boxes").RPN_WEIGHTS  # noqa: B018


def test_an_old_path_does_not_hide_a_public_function():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        importlib.import_module("kfpn.predict")
    assert inspect.isfunction(kfpn.predict)


def test_a_path_that_never_existed_is_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"kfpn\.engine\.nothing"):
        importlib.import_module("kfpn.engine.nothing")


def test_code_in_readme_and_docs_uses_only_public_names_of_kfpn():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for page in pages:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            assert not re.search(r"^\s*(from kfpn\.|import kfpn\.)", block, re.MULTILINE), page
            for name in re.findall(r"\bkfpn\.(\w+)", block):
                assert name in kfpn.__all__, f"{page}: kfpn.{name}"
