import pytest
from kills import begin, chance, compare, finish, kill_at, newest, write_data

STEPS = 16


@pytest.mark.slow
def test_a_run_killed_five_times_at_random_ends_with_the_same_bits(tmp_path):
    data = write_data(tmp_path / "data")
    finish(begin(tmp_path / "whole", data, STEPS))
    kills = 0
    for step, writing, delay in chance(5, STEPS):
        kills += kill_at(begin(tmp_path / "parts", data, STEPS), tmp_path / "parts", step, writing, delay)
        print(f"killed after step {step}{', writing' if writing else ''}: newest kept {newest(tmp_path / 'parts')}")
    assert kills == 5
    assert f"of {STEPS}" in finish(begin(tmp_path / "parts", data, STEPS))
    compare(tmp_path / "whole", tmp_path / "parts", STEPS)
