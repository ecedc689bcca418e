import pytest

from kfpn.cli import commands, main
from kfpn.cli.exports import EXPORTS, places_first
from kfpn.export.tf_trt.trt_options import TfTrtOptions


@pytest.fixture
def parsed(monkeypatch):
    """Returns the function (words of a command line) -> the options that `kfpn export tf_trt` takes from them."""

    def parse(*words):
        taken = []
        monkeypatch.setattr("kfpn.cli.command_line.run", lambda command: taken.append(command.options) or 0)
        assert main(["export", "tf_trt", *words]) == 0
        return taken[0]

    return parse


def test_work_directory_and_output_are_given_as_in_the_other_exports(parsed):
    assert parsed("w", "out", "--precision", "FP32") == TfTrtOptions("w", "out", "FP32")
    assert parsed("--dynamic", "w", "out") == TfTrtOptions("w", "out", dynamic=True)


def test_a_report_needs_no_output(parsed):
    assert parsed("w", "--report") == TfTrtOptions("w", report=True)


@pytest.mark.parametrize(
    "words",
    [
        ("--workdir", "w", "--output", "out", "--precision", "FP32"),
        ("--precision", "FP32", "--output=out", "--workdir=w"),
    ],
)
def test_the_options_of_version_0_1_still_work_with_a_warning(parsed, words):
    with pytest.warns(
        FutureWarning, match=r"kfpn export tf_trt --workdir W --output DIR is now kfpn export tf_trt W DIR"
    ):
        options = parsed(*words)
    assert options == TfTrtOptions("w", "out", "FP32")


@pytest.mark.parametrize("row", EXPORTS, ids=lambda row: row.name)
def test_every_export_takes_the_places_as_options_with_a_warning(row):
    with pytest.warns(FutureWarning, match=f"kfpn export {row.name} W DIR"):
        assert places_first(row.name, ["--output", "out", "--verify", "--workdir=w"]) == ["w", "out", "--verify"]


@pytest.mark.parametrize("row", EXPORTS, ids=lambda row: row.name)
def test_the_help_of_an_export_has_its_examples_and_the_list_has_one_line(row, capsys):
    with pytest.raises(SystemExit):
        main(["export", row.name, "--help"])
    assert row.description.splitlines()[-1].split(" --")[0] in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    # The text of the page has one list of examples; the list of exports has none.
    assert capsys.readouterr().out.count("Examples:") == 1


def test_a_report_with_the_options_of_version_0_1_needs_no_output(parsed):
    with pytest.warns(FutureWarning):
        options = parsed("--workdir", "w", "--report")
    assert options == TfTrtOptions("w", report=True)


def test_words_without_old_options_stay_as_they_are(recwarn):
    words = ["w", "out", "--verify"]
    assert places_first("tf_trt", words) == words
    assert not recwarn.list


def test_an_option_without_its_value_is_left_to_the_parser(capsys):
    with pytest.warns(FutureWarning), pytest.raises(SystemExit):
        main(["export", "tf_trt", "--workdir"])


def test_each_row_of_the_table_runs_its_own_options(monkeypatch):
    from kfpn.cli import exports, options

    taken = []
    rows = tuple(row._replace(run=lambda own, name=row.name: taken.append((name, own)) or 0) for row in exports.EXPORTS)
    monkeypatch.setattr(commands, "EXPORTS", rows)
    for row in rows:
        own = row.options("w", "out")
        assert commands.run(options.Export(own)) == 0
        assert taken[-1] == (row.name, own)
