"""`dpfc budget calibrate --solve`: every answer is what the library says, and keeps the budget."""

import pytest

from dpfc.accounting import (
    calibrate_noise_multiplier,
    calibrate_sampling_probability,
    calibrate_steps,
    gaussian_delta,
    gaussian_epsilon,
)
from dpfc.experiments.cli.console import rounded_safely

SAMPLED = ["--steps", 50, "--sampling-probability", 0.1]


@pytest.fixture
def ask(dpfc, strict_json):
    def run(*arguments):
        result = dpfc("budget", "calibrate", *arguments, "--json")
        assert result.code == 0, result.err
        return strict_json(result.out)

    return run


def test_printed_numbers_are_rounded_to_the_side_that_spends_no_more():
    assert rounded_safely(3.7306308, up=True) == "3.73064"
    assert rounded_safely(3.7306308, up=False) == "3.73063"
    assert rounded_safely(1.23456789e-7, up=True) == "1.23457e-07"
    assert rounded_safely(2.5, up=True) == "2.5"
    assert rounded_safely(float("inf"), up=True) == "inf"


def test_noise_by_each_accountant(ask):
    for accountant, resolved in (("auto", "pld"), ("pld", "pld"), ("rdp", "rdp")):
        report = ask("--epsilon", 2, *SAMPLED, "--accountant", accountant)
        assert report["solve"] == "noise" and report["accountant"] == resolved
        assert report["releases"][0]["noise_multiplier"] == calibrate_noise_multiplier(
            target_epsilon=2,
            target_delta=1e-5,
            steps=50,
            sampling_probability=0.1,
            accountant=accountant,
        )
        assert 2 * (1 - 1e-4) <= report["epsilon_by_accountant"][resolved] <= 2


def test_steps(ask):
    report = ask("--solve", "steps", "--noise-multiplier", 20, "--epsilon", 1)
    assert report["steps"] == calibrate_steps(20, target_epsilon=1, target_delta=1e-5) == 28
    assert report["accountant"] == "exact" and report["epsilon_by_accountant"]["exact"] <= 1


def test_sampling_probability(ask):
    given = ["--noise-multiplier", 2, "--steps", 50, "--epsilon", 2, "--delta", 1e-6]
    report = ask("--solve", "sampling-probability", *given)
    expected = calibrate_sampling_probability(2, 50, target_epsilon=2, target_delta=1e-6)
    assert report["sampling_probability"] == expected and 0 < expected < 1
    assert 2 * (1 - 1e-4) <= report["epsilon_by_accountant"]["pld"] <= 2


def test_epsilon_and_delta_of_a_run(ask):
    run = ["--noise-multiplier", 2, "--steps", 4]
    assert ask("--solve", "epsilon", *run)["epsilon"] == gaussian_epsilon(1, 1e-5)
    report = ask("--solve", "delta", *run, "--epsilon", 3)
    assert report["delta"] == gaussian_delta(1, 3)
    assert report["epsilon_by_accountant"]["exact"] == pytest.approx(3, rel=1e-9)
    # A delta that no float holds is not printed as 0.
    tiny = ask("--solve", "delta", "--noise-multiplier", 100, "--epsilon", 100)
    assert tiny["delta"] > 0 and tiny["epsilon_by_accountant"]["exact"] < 1


def test_what_was_worked_out_is_marked(dpfc):
    run = ["--noise-multiplier", 2, "--steps", 4]
    lines = dpfc("budget", "calibrate", "--solve", "epsilon", *run).out.splitlines()
    marked = [line for line in lines if "worked out" in line]
    assert len(marked) == 1 and marked[0].startswith("ε  ")
    assert any(line.startswith("rdp    ε = ") for line in lines)


def test_a_fit_is_calibrated_by_the_accountant_that_is_named(ask):
    noise = {
        name: ask("--epsilon", 1, "--method", "fc", "--accountant", name)["releases"][0][
            "noise_multiplier"
        ]
        for name in ("auto", "exact", "rdp")
    }
    assert noise["auto"] == noise["exact"] < noise["rdp"] < 1.2 * noise["exact"]


def test_help_teaches_every_question(dpfc):
    text = " ".join(dpfc("budget", "calibrate", "--help").out.split())
    for words in ("How much noise", "How many steps", "How large a batch", "What a run has cost"):
        assert words in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "--solve noise needs --epsilon."),
        ("--solve steps", "--solve steps needs --epsilon and --noise-multiplier."),
        ("--solve delta --epsilon 1", "--solve delta needs --noise-multiplier."),
        ("--solve epsilon --epsilon 1 --noise-multiplier 1", "leave --epsilon away"),
        ("--solve delta --delta 1e-5 --epsilon 1 --noise-multiplier 1", "leave --delta away"),
        ("--solve steps --epsilon 1 --noise-multiplier 9 --steps 2", "leave --steps away"),
        ("--epsilon 1 --noise-multiplier 2", "leave --noise-multiplier away"),
        ("--solve steps --epsilon 1 --noise-multiplier 1", "not even one release"),
        ("--solve steps --epsilon inf --noise-multiplier 1", "target_epsilon must be a float in"),
        ("--solve steps --epsilon 1 --noise-multiplier 0", "--noise-multiplier must be a float in"),
        ("--solve epsilon --method fc --noise-multiplier 1", "goes without --method"),
        ("--epsilon 1 --sampling-probability 0.1 --accountant exact", "exact has no closed form"),
        ("--solve delta --epsilon 0.1 --noise-multiplier 1e-4", "gives no guarantee"),
        ("--epsilon 1 --sampling-probability 1e-6", "no noise to calibrate"),
        (
            "--epsilon 1 --sampling-probability 0.1 --accountant rdp "
            "--neighboring-relation replace_one",
            "rdp has no bound for Poisson sampling",
        ),
    ],
)
def test_questions_that_make_no_sense_get_one_clear_line(dpfc, arguments, words):
    result = dpfc("budget", "calibrate", *arguments.split())
    assert result.code == 1 and result.out == ""
    assert words in result.err and result.err.count("\n") == 1
