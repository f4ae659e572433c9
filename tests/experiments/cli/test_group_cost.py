"""`dpfc budget group`."""

import pytest

from dpfc.accounting.groups import group_guarantee, row_epsilon


def test_both_directions_are_told(dpfc, strict_json):
    done = dpfc("budget", "group", "--rows", 5, "--epsilon", 1)
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    assert ["full-batch", "Gaussian", "0.1727", "1e-05"] in lines
    assert ["any", "mechanism", "0.2", "1.289e-06"] in lines
    report = strict_json(dpfc("budget", "group", "--rows", 5, "--epsilon", 1, "--json").out)
    assert report["row"]["full_batch_gaussian"] == {
        "epsilon": row_epsilon(1.0, 1e-5, 5),
        "delta": 1e-5,
    }
    assert tuple(report["group"]["any_mechanism"].values()) == group_guarantee(1.0, 1e-5, 5)


def test_a_run_is_told_for_one_row_and_for_several(dpfc, strict_json):
    run = ("--noise-multiplier", 4, "--steps", 4)
    report = strict_json(dpfc("budget", "group", "--rows", 2, *run, "--json").out)
    assert report["row"]["epsilon"] == pytest.approx(1.9931, abs=0.02)
    assert report["group"]["epsilon"] > 2 * report["row"]["epsilon"]
    out = dpfc("budget", "group", "--rows", 2, *run).out
    assert out.startswith("one row: ε = ") and "2 rows together: ε = " in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", 5], "give --epsilon"),
        (["--rows", 5, "--epsilon", 1, "--noise-multiplier", 1], "give --epsilon"),
        (["--rows", 5, "--epsilon", 1, "--steps", 3], "go with --noise-multiplier"),
        (["--rows", 0, "--epsilon", 1], "greater than or equal to 1"),
        (["--rows", 5, "--epsilon", 0], "epsilon must be"),
        (["--rows", 5, "--epsilon", 1, "--delta", 1], "delta must be"),
    ],
)
def test_what_makes_no_question_is_refused_in_one_line(dpfc, options, message):
    done = dpfc("budget", "group", *options)
    assert done.code != 0 and done.out == ""
    assert message in done.err and done.err.count("\n") <= 2
