import json

import pytest

from kfpn.runs.checkpoint import Progress
from kfpn.runs.workdir import Workdir
from kfpn.training.results import summary_line, write_final
from tests.training import standin

pytestmark = pytest.mark.filterwarnings("ignore:.*curves.png can't be written")  # there are no metrics

BEST = {"AP": 0.5, "AP50": 0.75, "AP75": 0.25, "per_class": {"a": 0.5}}
LAST = {"AP": 0.25, "AP50": 0.5, "AP75": None, "per_class": {"a": 0.25}}


def written(tmp_path, best, last, best_step):
    progress = Progress(
        step=6, seconds=12.0, evaluated=6, last=last, best_step=best_step, best=best, logged={"step": 6, "loss": 1.0}
    )
    final = write_final(standin.config(), Workdir(tmp_path), progress)
    assert json.loads((tmp_path / "final.json").read_text()) == final
    return final


def test_final_json_has_the_last_figures_beside_the_best(tmp_path):
    final = written(tmp_path, BEST, LAST, 4)
    assert {name: final[name] for name in BEST} == BEST
    assert final["last"] == {"step": 6, **LAST}
    assert (final["best_step"], final["last_AP"]) == (4, 0.25)
    assert "best step 4 (the last, step 6: AP 0.250)" in summary_line(final)


def test_where_the_last_evaluation_is_the_best_its_figures_stand_twice_and_are_said_once(tmp_path):
    final = written(tmp_path, BEST, BEST, 6)
    assert final["last"] == {"step": 6, **BEST}
    assert summary_line(final).count("AP ") == 1


@pytest.mark.parametrize("last", [{}, {"AP": None}, {"AP": None, "AP50": None}])
def test_without_a_measured_ap_the_line_says_nothing_of_the_last(tmp_path, last):
    final = written(tmp_path, {}, last, 6)
    assert final["last"] == ({"step": 6, **last} if last else {})
    assert "the last, step" not in summary_line(final)


def test_a_final_json_of_an_older_version_has_a_line_too(tmp_path):
    final = written(tmp_path, BEST, LAST, 4)
    del final["last"]
    assert "best step 4;" in summary_line(final)


def test_the_line_has_the_figures_at_the_own_limit_and_the_one_that_decided(tmp_path):
    own = {"AP@500": 0.6, "AP50@500": 0.9, "AP75@500": 0.7, "AR@500": 0.65, "best_by": "AP@500"}
    line = summary_line(written(tmp_path, {**BEST, **own}, {**LAST, **own, "AP@500": 0.55}, 4))
    assert "AP@500 0.600, AP50@500 0.900, AP75@500 0.700, AR@500 0.650, loss" in line
    assert "best step 4 by AP@500 (the last, step 6: AP@500 0.550)" in line
