"""A study is read whole, or refused with the line and the nearest right word."""

from __future__ import annotations

import pytest

from dpfc.experiments.studies.config import Range, estimator_parameters, read_study

NEWTON = "newton\n    seeds: 1\n    parameters:\n      n_steps: [3, 5]"
STUDY = """\
name: first
datasets:
  - {name: digits, builtin: digits}
methods:
  - fc
  - name: newton
    seeds: 1
    parameters:
      n_steps: [3, 5]
epsilons: [0.5, 2]
parameters:
  l2_clip_norm: 1.0
  logit_noise: {low: 0.3, high: 2, log: true}
search: {trials: 3}
"""


@pytest.fixture
def read(tmp_path):
    def read(text=STUDY, *overrides):
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return read_study(path, overrides)

    return read


def test_a_study_is_read_as_it_is_written(read):
    study = read()
    assert [method.name for method in study.methods] == ["fc", "newton"]
    assert study.methods[1].seeds == 1 and study.seeds == 5
    assert study.methods[1].parameters == {"n_steps": [3, 5]}
    assert study.parameters["logit_noise"] == Range(low=0.3, high=2, log=True)
    assert study.epsilons == [0.5, 2.0] and study.delta == 1e-5 and study.search.trials == 3


def test_one_value_may_stand_for_a_list(read):
    study = read("name: a\ndatasets: [{name: d, builtin: digits}]\nmethods: [fc]\nepsilons: 1\n")
    assert study.epsilons == [1.0]


def test_overrides_go_before_the_file(read):
    study = read(
        STUDY, "seeds=2", "epsilons=[1]", "search.trials=7", "methods=[gd]", "parameters={}"
    )
    assert study.seeds == 2 and study.epsilons == [1.0] and study.search.trials == 7
    assert [method.name for method in study.methods] == ["gd"]


FAULTS = {
    "unknown key": (("epsilons:", "epsilon:"), "line 10: there is no key 'epsilon'. Did you mean"),
    "unknown key of a method": (("    seeds: 1", "    seed: 1"), "line 7: .*Did you mean 'seeds'"),
    "unknown parameter": (("n_steps", "n_step"), "line 6: .*'n_step'. Did you mean 'n_steps'"),
    "unknown method": (("  - fc", "  - fcc"), "line 5: .*no method 'fcc'. Did you mean 'fc'"),
    "unknown shared parameter": (("l2_clip_norm", "l2_clip"), "Did you mean 'l2_clip_norm'"),
    "unknown data": (("builtin: digits", "builtin: digit"), "line 3: .*Did you mean 'digits'"),
    "negative ε": (("[0.5, 2]", "[0.5, -2]"), "line 10: epsilons.1: .*greater than 0, got -2"),
    "ε twice": (("[0.5, 2]", "[2, 2]"), "epsilons holds 2.0 twice"),
    "words for ε": (("[0.5, 2]", "[small]"), "line 10: epsilons.0: .*got 'small'"),
    "turned range": (("low: 0.3", "low: 3"), "line 13: .*low must be below high"),
    "log of zero": (("low: 0.3", "low: 0"), "line 13: .*starts above 0"),
    "method twice": (
        ("newton\n    seeds: 1\n    parameters:\n      n_steps: [3, 5]", "fc"),
        "label",
    ),
    "no trials": (("trials: 3", "trials: 0"), "line 14: search.trials: .*greater than 0"),
    "two sources": (
        ("builtin: digits", "builtin: digits, train: a, test: b"),
        "train and test, or",
    ),
    "half a source": (("builtin: digits", "train: a"), "line 3: .*give train and test"),
    "missing name": (("name: first\n", ""), "name is missing"),
    "name with a path": (("name: first", "name: ../first"), "line 1: name: .*got '../first'"),
    "key twice": (("name: first", "name: first\nname: second"), "line 2: 'name' is there twice"),
    "no YAML": (("name: first", "name: [first"), "line 2: not YAML"),
    "a list": ((STUDY, "- name"), "a study is a mapping"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_named_with_its_line(read, fault):
    (old, new), words = FAULTS[fault]
    assert old in STUDY
    with pytest.raises(ValueError, match=words):
        read(STUDY.replace(old, new))


@pytest.mark.parametrize(
    "name", ["Unsere Stationen", "病棟 7", "वार्ड", "Øst-2", "a", "2026", "v1.2_b", "ü" * 60]
)
def test_a_name_is_written_in_any_language(read, name):
    study = read(
        STUDY.replace("name: first", f"name: '{name}'").replace(
            "{name: digits", f"{{name: '{name}'"
        )
    )
    assert study.name == study.datasets[0].name == name


def test_a_name_in_two_encodings_is_one_name(read):
    assert read(STUDY.replace("first", "A\u0308rzte")).name == "\u00c4rzte"


@pytest.mark.parametrize(
    "name", ["", " a", "a ", "../a", "a/b", ".a", "-a", "a\\b", "a:b", "a" * 61]
)
def test_a_name_that_cannot_be_a_folders_is_refused_in_words(read, name):
    with pytest.raises(ValueError, match=r"line 1: name: a name starts with a letter or digit"):
        read(STUDY.replace("name: first", f"name: '{name}'"))


def test_a_number_for_a_name_is_asked_for_in_quotes(read):
    with pytest.raises(
        ValueError, match=r"line 1: name: must be a text: put it in quotes, got 7\."
    ):
        read(STUDY.replace("name: first", "name: 7"))


@pytest.mark.parametrize("seeds", ["'012'", "'3'", "['1', '2']", "abc"])
def test_a_text_is_no_list_of_seeds(read, seeds):
    with pytest.raises(ValueError, match=r"line 7: .*seeds are a number, a list of numbers"):
        read(STUDY.replace("seeds: 1", f"seeds: {seeds}"))


@pytest.mark.parametrize(
    "line", ["seeds: yes", "seeds: [1, no]", "epsilons: [on]", "epsilons: yes"]
)
def test_yes_is_no_number(read, line):
    key = line.partition(":")[0]
    text = "".join(part for part in STUDY.splitlines(keepends=True) if not part.startswith(key))
    with pytest.raises(ValueError, match=rf"{key}.*a number is needed, not yes, no"):
        read(text + line + "\n")


@pytest.mark.parametrize("code", ["\\e[31m", "\\x07", "\\u009b2J", "\\r"])
@pytest.mark.parametrize("place", ["fc", "description"])
def test_a_text_that_steers_a_terminal_is_refused_with_its_line(read, code, place):
    text = STUDY + f'description: "a{code}b"\n'
    if place == "fc":
        text = STUDY.replace("  - fc", f'  - {{name: fc, label: "a{code}b"}}')
    with pytest.raises(ValueError, match=r"line (5|15): a text holds the control character U\+00"):
        read(text)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seeds", "key=value"),
        ("=3", "key=value"),
        ("epsilons=[1", "not YAML"),
        ("epsilon=2", "override: there is no key 'epsilon'. Did you mean 'epsilons'"),
        ("seeds=-1", "override: seeds: "),
        ("name.x=1", "holds no names"),
    ],
)
def test_wrong_overrides_are_refused(read, override, words):
    with pytest.raises(ValueError, match=words):
        read(STUDY, override)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: 1", "seeds: 10000000", r"the limit study_runs is 100,000 .*DPFC_LIMIT_STUDY_RUNS"),
        ("trials: 3", "trials: 1000000000000", "the limit study_runs"),
    ],
)
def test_a_study_of_too_many_runs_is_refused_before_it_is_spelled_out(tmp_path, old, new, message):
    path = tmp_path / "study.yaml"
    assert old in STUDY
    path.write_text(STUDY.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_study(path)


def test_a_grid_is_counted_before_it_is_spelled_out(tmp_path):
    ten = "[" + ", ".join(f"0.{i}" for i in range(1, 10)) + "]"
    lines = "".join(f"      {name}: {ten}\n" for name in estimator_parameters("fc")[:9])
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: wide\ndatasets: [{name: digits, builtin: digits}]\nepsilons: [1]\n"
        f"methods:\n  - name: fc\n    parameters:\n{lines}"
    )
    with pytest.raises(
        ValueError, match=r"the study has 1,937,102,4\d\d runs; the limit study_runs"
    ):
        read_study(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a0: &a0 [1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
            "stands for too many values; the limit yaml_nodes",
        ),
        ("a: &a [*a]\n", "line 1: not YAML: a value holds itself"),
        ("a: " + "[" * 20_000, "nested too deeply"),
        ("# " + "x" * 2**18 + "\nname: a\n", "the limit yaml_bytes"),
        ("name: \xff", "not UTF-8"),
        ("? [a]\n: b\n", "unhashable key"),
        ("name: 2001-99-99\n", "not YAML"),
        ("name: " + "9" * 5000 + "\n", "not YAML"),
        ("name: !!timestamp x\n", "not YAML: it holds a date or number that is none"),
        ("seeds: 010\n", "line 1: not YAML: '010' would be read to base 8 or 60"),
        ("epsilons: [1, 1:30]\n", "line 1: not YAML: '1:30' would be read to base 8 or 60"),
        ("name: !!python/object:os.system x\n", "not YAML"),
        ("name: \x00", "not YAML"),
        ("1: 2\n", "1"),
    ],
)
def test_yaml_that_would_fill_memory_or_is_none_is_refused_in_one_sentence(tmp_path, text, message):
    path = tmp_path / "study.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        read_study(path)
