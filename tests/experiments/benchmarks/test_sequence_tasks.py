"""Generated sequences: labels by independent computation, and splits that share no row."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from dpfc.experiments.benchmarks import sequences
from dpfc.experiments.benchmarks.sequence_tasks import (
    LIST_OPS_TOKENS,
    TASKS,
    evaluate,
    list_ops,
    pathfinder,
    sequential_digits,
)

SIZES = {
    "digits": {},
    "listops": {"n_train": 400, "n_test": 100},
    "pathfinder": {"n_train": 200, "n_test": 60},
}


@pytest.fixture(scope="module")
def tasks():
    return {name: make(**SIZES[name]) for name, make in TASKS.items()}


@pytest.mark.parametrize("name", TASKS)
def test_splits_have_their_sizes_dtypes_and_labels(tasks, name):
    task = tasks[name]
    assert len(task.X) == len(task.y) and len(task.X_test) == len(task.y_test)
    assert task.X.dtype == (np.float32 if task.vocabulary_size is None else np.int64)
    assert task.X.shape[1:] == task.X_test.shape[1:] and task.X.ndim == 2
    top = 1.0 if task.vocabulary_size is None else task.vocabulary_size - 1
    assert task.X.min() == 0 and task.X.max() == top
    for labels in (task.y, task.y_test):
        assert labels.dtype == np.int64
        counts = np.bincount(labels, minlength=task.n_classes)
        # Made up in equal numbers; of real digits, in nearly equal ones.
        assert np.ptp(counts) <= (0 if name != "digits" else 0.1 * counts.mean())


@pytest.mark.parametrize("name", TASKS)
def test_no_row_comes_twice(tasks, name):
    rows = [row.tobytes() for row in (*tasks[name].X, *tasks[name].X_test)]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("name", TASKS)
def test_a_seed_repeats_the_data(tasks, name):
    again = TASKS[name](**SIZES[name], seed=0)
    other = TASKS[name](**SIZES[name], seed=1)
    for mine, same in zip(tasks[name][:4], again[:4], strict=True):
        assert np.array_equal(mine, same)
    assert not np.array_equal(tasks[name].X, other.X)


@pytest.mark.parametrize("name", TASKS)
def test_rows_lie_in_no_order_of_labels(tasks, name):
    labels = tasks[name].y
    repeats = np.mean(labels[1:] == labels[:-1])
    assert repeats == pytest.approx(1 / tasks[name].n_classes, abs=0.12)


def test_digits_are_scikit_learns_1797():
    task = sequential_digits()
    assert task.X.shape == (1347, 64) and task.X_test.shape == (450, 64)


# A ListOps expression as Python: operators become calls, of which Python finds the values.
_PYTHON = {"[MIN": "min(", "[MAX": "max(", "[MED": "median(", "[SM": "modular_sum(", "]": "),"}


def _value_by_python(tokens):
    words = [LIST_OPS_TOKENS[token] for token in tokens if token]
    source = "".join(_PYTHON.get(word, f"{word},") for word in words)
    names = {
        "median": lambda *v: (sorted(v)[(len(v) - 1) // 2] + sorted(v)[len(v) // 2]) // 2,
        "modular_sum": lambda *v: int(str(sum(v))[-1]),
    }
    return eval(source.rstrip(","), names)


def test_labels_of_lists_are_their_values_by_python(tasks):
    task = tasks["listops"]
    for X, y in ((task.X, task.y), (task.X_test, task.y_test)):
        assert [_value_by_python(row) for row in X] == y.tolist()


def test_lists_are_nested_padded_at_the_end_and_use_every_token(tasks):
    X = tasks["listops"].X
    assert X.shape[1] == 128 and set(np.unique(X)) == set(range(len(LIST_OPS_TOKENS)))
    lengths = (X > 0).sum(axis=1)
    assert all((row[:length] > 0).all() for row, length in zip(X, lengths, strict=True))
    opening = [LIST_OPS_TOKENS.index(word) for word in ("[MIN", "[MAX", "[MED", "[SM")]
    depth = np.cumsum(np.isin(X, opening).astype(int) - (LIST_OPS_TOKENS.index("]") == X), axis=1)
    assert (depth[:, -1] == 0).all() and depth.max() == 4
    assert (depth.max(axis=1) >= 2).mean() > 0.5


def test_an_expression_known_from_the_paper_has_its_value():
    words = ["[MAX", "2", "9", "[MIN", "4", "7", "]", "0", "]"]
    assert evaluate([LIST_OPS_TOKENS.index(word) for word in words]) == 9
    words = ["[SM", "8", "9", "[MED", "1", "4", "8", "9", "]", "]", "<pad>"]
    assert evaluate([LIST_OPS_TOKENS.index(word) for word in words]) == 3


def _regions(image):
    """Flood fill: pixels are neighbours if at most 2 rows and 2 columns apart."""
    region = np.full(image.shape, -1)
    for start in zip(*np.nonzero(image), strict=True):
        if region[start] >= 0:
            continue
        queue, region[start] = deque([start]), region.max() + 1
        while queue:
            row, column = queue.popleft()
            for near in np.ndindex(5, 5):
                cell = (row + near[0] - 2, column + near[1] - 2)
                inside = all(0 <= i < n for i, n in zip(cell, image.shape, strict=True))
                if inside and image[cell] > 0 and region[cell] < 0:
                    region[cell] = region[start]
                    queue.append(cell)
    return region


def _dots(image):
    """Give a pixel of each dot: dots are squares of 3 x 3 ones, the first found row by row."""
    left, centres = image == 1.0, []
    while left.any():
        row, column = np.argwhere(left)[0]
        assert left[row : row + 3, column : column + 3].all()
        left[row : row + 3, column : column + 3] = False
        centres.append((row + 1, column + 1))
    return centres


def test_dots_are_joined_where_a_flood_fill_joins_them(tasks):
    task = tasks["pathfinder"]
    for row, label in zip((*task.X, *task.X_test), (*task.y, *task.y_test), strict=True):
        image = row.reshape(16, 16)
        assert set(np.unique(image)) == {0.0, 0.5, 1.0}
        region, dots = _regions(image), _dots(image)
        assert region.max() == 1  # two curves
        first, second = dots
        assert (region[first] == region[second]) == (label == 1)


def test_larger_images_keep_to_the_rule():
    task = pathfinder(20, 10, side=24, seed=3)
    for row, label in zip(task.X, task.y, strict=True):
        image = row.reshape(24, 24)
        region, (first, second) = _regions(image), _dots(image)
        assert (region[first] == region[second]) == (label == 1)


def test_how_far_dots_are_apart_says_nothing_of_the_label():
    task = pathfinder(600, 0)
    far = []
    for row in task.X:
        first, second = _dots(row.reshape(16, 16))
        far.append(np.hypot(first[0] - second[0], first[1] - second[1]))
    far = np.array(far)
    means = [far[task.y == label].mean() for label in (0, 1)]
    error = far.std() * np.sqrt(4 / len(far))
    assert abs(means[0] - means[1]) < 4 * error


@pytest.mark.parametrize("make", [list_ops, pathfinder])
def test_numbers_of_rows_that_cannot_be_balanced_are_refused(make):
    with pytest.raises(ValueError, match="n_train and n_test must be"):
        make(101, 10)


def test_the_command_prints_a_table(capsys):
    assert sequences.main(["--task", "digits", "--steps", "2"]) == 0
    assert "| digits | AdamW, not private |" in capsys.readouterr().out
    assert sequences.main(["--task", "nothing"]) == 1
    assert "there is no task 'nothing'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_digits_read_pixel_by_pixel_are_told_apart_without_privacy(seed):
    task = sequential_digits(seed=seed)
    network = sequences.train_without_privacy(task, 300, seed)
    assert sequences.accuracy(network, task.X_test, task.y_test) >= 0.95
