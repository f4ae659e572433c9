"""A message names an option as its reader writes it."""

import pytest
import typer

from dpfc.experiments.cli.app import app
from dpfc.experiments.cli.spelling import flags_of, in_flags

EXTRACT = flags_of(typer.main.get_command(app), ["extract", "--data", "fit"])
IMPORT = flags_of(typer.main.get_command(app), ["features", "import", "x.npz"])


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("name it: text_column=…", "name it: --text-column …"),
        ("or state all class_names.", "or state all --class-names."),
        ("no column 'lable' (label_column); its", "no column 'lable' (--label-column); its"),
        ("with overwrite=True.", "with --overwrite."),
        ("with on_error='skip'.", "with --on-error skip."),
        ("say so with header=False and", "say so with --no-header and"),
        ("batch_size must be an int > 0, got 0.", "--batch-size must be an int > 0, got 0."),
        ("/home/label_column/x.csv is", "/home/label_column/x.csv is"),
        ("column 'label_column' of x", "column 'label_column' of x"),
        ("n_features is no option", "n_features is no option"),
        ("dtype is what the file computes in", "dtype is what the file computes in"),
    ],
)
def test_parameters_of_python_become_the_flags_of_the_command(message, expected):
    assert in_flags(message, EXTRACT) == expected


def test_only_the_options_of_the_command_that_runs_are_flags():
    assert in_flags("drop=[…] and id_column", IMPORT) == "--drop … and --id-column"
    assert in_flags("drop=[…] and id_column", EXTRACT) == "drop=[…] and id_column"


def test_python_and_the_command_line_each_see_their_own_spelling(dpfc, tmp_path):
    from dpfc.features import DatasetError, open_dataset

    (tmp_path / "a.csv").write_text("words,label\na,1\n")
    run = dpfc("extract", "--data", tmp_path / "a.csv", "--out", tmp_path / "c")
    assert run.code == 1
    assert "--text-column …" in run.err and "text_column" not in run.err
    with pytest.raises(DatasetError, match="text_column=…") as error:
        open_dataset(tmp_path / "a.csv")
    assert "--" not in str(error.value)
