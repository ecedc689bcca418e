import pytest

from kfpn.config.auto_facts import MachineFacts
from kfpn.config.fast_precision import fast_precision
from kfpn.config.run import Config
from kfpn.runs import used_precision
from kfpn.runs.fast_bfloat16 import has_fast_bfloat16, has_matrix_units
from kfpn.training import step_form
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.precision_choice import with_precision


@pytest.mark.parametrize(
    ("flags", "fast", "matrix"),
    [("fma avx2", False, False), ("avx512f avx512_bf16", True, False), ("amx_bf16 avx512_bf16 amx_tile", True, True)],
)
def test_the_flags_of_the_processor_decide(tmp_path, monkeypatch, flags, fast, matrix):
    monkeypatch.delenv("KFPN_FAST_BFLOAT16")
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor : 0\nflags\t\t: {flags}\nbugs : none\n")
    assert (has_fast_bfloat16(file), has_matrix_units(file)) == (fast, matrix)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx512_core_bf16")
    assert (has_fast_bfloat16(file), has_matrix_units(file)) == (fast, False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx512_core")
    assert (has_fast_bfloat16(file), has_matrix_units(file)) == (False, False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    for name in ("TF_ENABLE_ONEDNN_OPTS", "KFPN_FAST_BFLOAT16"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "0")
            assert (has_fast_bfloat16(file), has_matrix_units(file)) == (False, False)


def test_a_machine_without_the_list_is_taken_as_slow(tmp_path, monkeypatch):
    monkeypatch.delenv("KFPN_FAST_BFLOAT16")
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


@pytest.mark.parametrize(("on_gpu", "form"), [(False, "islands"), (True, "off")])
def test_what_xla_can_not_compile_as_a_whole_is_in_islands_on_a_cpu_and_not_compiled_on_a_gpu(on_gpu, form):
    with pytest.warns(UserWarning, match=f"compile is {form}: sync_bn sums over replicas"):
        assert step_form.step_form(Config(compile="whole"), on_gpu, synchronizes=True) == form


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

    def holds_training(self):
        return True

    def read_config(self):
        return Config(precision=self.kept)


def test_a_run_that_goes_on_keeps_its_precision(monkeypatch, capsys):
    monkeypatch.setattr("kfpn.training.precision_choice.machine_facts", lambda *_: MachineFacts(fast_bfloat16=True))
    alone = Cluster(None)
    assert with_precision(Config(), Folder(), alone).precision == "mixed_bfloat16"
    assert with_precision(Config(), Folder("float32"), alone).precision == "float32"
    assert with_precision(Config(precision="mixed_float16"), Folder("float32"), alone).precision == "mixed_float16"
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


def test_another_word_for_a_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be one of auto, float32, mixed_bfloat16, got 'bfloat16'"):
        used_precision.used_precision("bfloat16", Config())


def test_on_a_gpu_a_network_is_used_in_float32_unless_asked_otherwise(monkeypatch):
    monkeypatch.setattr(used_precision, "has_fast_bfloat16", lambda: True)
    monkeypatch.setattr(used_precision, "default_device", lambda: "GPU:0")
    own = Config(precision="mixed_bfloat16")
    assert used_precision.used_precision("auto", own) == "float32"
    assert used_precision.used_precision("mixed_bfloat16", own) == "mixed_bfloat16"
