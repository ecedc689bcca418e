import pytest

from kfpn.config.auto_facts import MachineFacts
from kfpn.config.fast_precision import fast_precision
from kfpn.config.run import Config
from kfpn.runs import used_precision
from kfpn.runs.fast_bfloat16 import has_fast_bfloat16, has_matrix_units
from kfpn.training import step_form
from kfpn.training.precision_choice import with_precision


@pytest.mark.parametrize(
    ("flags", "fast", "matrix"),
    [("fma avx2", False, False), ("avx512f avx512_bf16", True, False), ("amx_bf16 avx512_bf16 amx_tile", True, True)],
)
def test_the_flags_of_the_processor_decide(tmp_path, monkeypatch, flags, fast, matrix):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor : 0\nflags\t\t: {flags}\nbugs : none\n")
    assert (has_fast_bfloat16(file), has_matrix_units(file)) == (fast, matrix)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx512_core")
    assert (has_fast_bfloat16(file), has_matrix_units(file)) == (False, False)


def test_a_machine_without_the_list_is_taken_as_slow(tmp_path, monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert not has_fast_bfloat16(tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "on_gpu", "matrix", "fast", "expected"),
    [
        ({}, False, False, False, "whole"),
        ({}, False, True, True, "islands"),
        ({}, True, True, True, "whole"),
        ({}, False, False, True, "whole"),  # float32 on a processor with AVX512_BF16 alone
        ({"precision": "mixed_bfloat16"}, False, False, True, "islands"),
        ({"precision": "mixed_bfloat16"}, False, False, False, "whole"),
        ({"compile": "off"}, False, True, True, "off"),
        ({"jit_compile": False}, False, True, True, "off"),
        ({"compile": "whole"}, False, True, True, "whole"),
        ({"compile": "islands"}, True, False, False, "islands"),
    ],
)
def test_the_form_of_a_step_follows_option_device_and_processor(monkeypatch, options, on_gpu, matrix, fast, expected):
    monkeypatch.setattr(step_form, "has_matrix_units", lambda: matrix)
    monkeypatch.setattr(step_form, "has_fast_bfloat16", lambda: fast)
    assert step_form.step_form(Config(**{"precision": "float32", **options}), on_gpu) == expected


def test_what_xla_can_not_compile_as_a_whole_becomes_islands():
    with pytest.warns(UserWarning, match="compile is islands: sync_bn sums over replicas"):
        assert step_form.step_form(Config(compile="whole"), True, synchronizes=True) == "islands"


def test_a_contradiction_of_the_two_options_is_an_error():
    with pytest.raises(ValueError, match="compile must be left out with jit_compile False, got 'whole'"):
        Config(compile="whole", jit_compile=False)


class Folder:
    """Stands in for a work directory: `config` exists, or not."""

    def __init__(self, kept=None):
        self.kept = kept
        self.config = self

    def exists(self):
        return self.kept is not None

    def read_config(self):
        return Config(precision=self.kept)


def test_a_run_that_goes_on_keeps_its_precision(monkeypatch, capsys):
    monkeypatch.setattr("kfpn.training.precision_choice.machine_facts", lambda *_: MachineFacts(fast_bfloat16=True))
    assert with_precision(Config(), Folder(), None).precision == "mixed_bfloat16"
    assert with_precision(Config(), Folder("float32"), None).precision == "float32"
    assert with_precision(Config(precision="mixed_float16"), Folder("float32"), None).precision == "mixed_float16"
    said = capsys.readouterr().out
    assert "precision mixed_bfloat16: this processor is fast in bfloat16" in said
    assert "precision float32: as the run began" in said


def test_a_machine_that_is_not_fast_in_bfloat16_trains_in_float32():
    assert fast_precision(MachineFacts()) == ("float32", "this processor is not fast in bfloat16")
    assert fast_precision(MachineFacts(gpus=1, fast_bfloat16=True))[0] == "mixed_bfloat16"


@pytest.mark.parametrize(
    ("asked", "own", "fast", "expected"),
    [
        ("auto", "mixed_bfloat16", True, "mixed_bfloat16"),
        ("auto", "mixed_bfloat16", False, "float32"),
        ("auto", "mixed_float16", True, "float32"),
        ("auto", "auto", True, "float32"),  # weights that were imported and not trained
        ("float32", "mixed_bfloat16", True, "float32"),
        ("mixed_bfloat16", "float32", False, "mixed_bfloat16"),
    ],
)
def test_a_network_is_used_in_the_precision_of_its_run_where_that_is_fast(monkeypatch, asked, own, fast, expected):
    monkeypatch.setattr(used_precision, "has_fast_bfloat16", lambda: fast)
    assert used_precision.used_precision(asked, Config(precision=own)) == expected
