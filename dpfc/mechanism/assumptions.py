"""What a reader has to accept for a guarantee to hold, in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpfc._support.words import shown

__all__ = [
    "evaluation_assumptions",
    "fit_assumptions",
    "summary_assumptions",
    "training_assumptions",
]

_NOISE = "the noise is a Gaussian that is rounded exactly"
_INTEGERS = f"where noise is added, sums are exact integers (times sum_unit), and {_NOISE}"


def fit_assumptions(
    *,
    unit_of_privacy: str,
    classes_stated: bool,
    classes_in_cache: bool,
    neighboring_relation: str,
    n_samples_stated: bool,
    l2_bound: float,
    public_features: bool = False,
    searched: bool = False,
    columns_named: bool = False,
    origin: Mapping[str, Any] | None = None,
    max_group_rows: int | None = None,
) -> list[str]:
    """List the assumptions behind a fit.

    Parameters
    ----------
    unit_of_privacy : str
        Such as "one row" or "one patient".
    classes_stated, classes_in_cache : bool
        Whether the list of classes was given, or stands in a feature cache's manifest.
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    n_samples_stated : bool
        Whether the number of rows was given as public knowledge.
    l2_bound : float
        What the norm of every row is bounded by.
    public_features : bool, default=False
        Whether unlabelled public features were used.
    searched : bool, default=False
        Whether hyperparameters were chosen by a private search, among given candidates.
    columns_named : bool, default=False
        Whether the model keeps the names of a data frame's columns.
    origin : mapping, optional
        How a cache's features were made, as it tells it.
    max_group_rows : int, optional
        How many rows of a group of them counted at most; None where rows had no groups.

    Returns
    -------
    list of str
    """
    return [
        rows_of(unit_of_privacy, max_group_rows),
        _features(origin),
        _classes(classes_stated, classes_in_cache),
        *_columns(columns_named),
        *(["public_features hold no private rows"] if public_features else []),
        _count(
            neighboring_relation, n_samples_stated, "row" if max_group_rows is None else "group"
        ),
        "the search's candidates, and all other hyperparameters, were chosen without looking at "
        "these rows"
        if searched
        else "hyperparameters were chosen without looking at these rows",
        f"finite rows and labels inside classes; rows bounded to l2 norm {l2_bound:g}",
        f"{_INTEGERS}; a sensitivity has up to 2% of room for rounding rows to them; timing and "
        "memory use are not protected",
    ]


def training_assumptions(
    *,
    unit_of_privacy: str,
    classes_stated: bool,
    classes_in_cache: bool,
    neighboring_relation: str,
    n_samples_stated: bool,
    l2_clip_norm: float,
    input_bound: float,
    one_at_a_time: bool,
    checkpointed: bool,
    own_module: bool = False,
    columns_named: bool = False,
    grouped: bool = False,
) -> list[str]:
    """List the assumptions behind the training of a whole network.

    Parameters
    ----------
    unit_of_privacy, classes_stated, classes_in_cache, neighboring_relation, n_samples_stated
        As for `fit_assumptions`.
    l2_clip_norm : float
        What the gradient of every row is clipped at.
    input_bound : float
        What the numbers of every row were cut at.
    one_at_a_time : bool
        Whether one row went through the network at a time.
    checkpointed : bool
        Whether the fit was kept in a file that it could go on from.
    own_module : bool, default=False
        Whether the network is the user's, in place of one that comes with dpfc.
    columns_named : bool, default=False
        As for `fit_assumptions`.
    grouped : bool, default=False
        Whether rows came in groups, of which every step takes one row at most.

    Returns
    -------
    list of str
    """
    alone = (
        "each row went through the network alone"
        if one_at_a_time
        else "rows went through the network in passes of one shape, in which a row's place and the "
        "rows beside it change no bit of its gradient (tried out on made-up rows, on the machine "
        "of the fit)"
    )
    unseen = (
        "the module joins rows of a pass in no way that made-up rows do not show, as by looking "
        "for one value in all of them (physical_batch_size=1 rules that out)"
    )
    drawn = (
        "group independently, with the stated sampling probability, and of its rows one, by a "
        "fresh secret coin"
        if grouped
        else "row independently, with the stated sampling probability"
    )
    once = "the fit's checkpoint was not published, and was gone on from in one line only"
    return [
        _group(unit_of_privacy) if grouped else rows_of(unit_of_privacy, None),
        "the weights that training started from hold nothing of these rows",
        _classes(classes_stated, classes_in_cache),
        *_columns(columns_named),
        _count(neighboring_relation, n_samples_stated, "group" if grouped else "row"),
        "hyperparameters were chosen without looking at these rows",
        f"every step drew each {drawn}",
        "a row's gradient is its own, and the module keeps nothing of rows (checked on made-up "
        "rows; an augmentation of the user's own got one row at a time); it is finite or else left "
        f"out, and clipped to l2 norm {l2_clip_norm:g}",
        f"numbers of a row bounded to {input_bound:g} either way, a bound that is public",
        alone,
        *([unseen] if own_module and not one_at_a_time else []),
        *([once] if checkpointed else []),
        "clipped gradients are computed and summed in floating point, whose rounding is inside "
        "numerical_slack; where noise is added, their sum is rounded to integers (times sum_unit) "
        f"before, and {_NOISE}; timing and memory use are not protected",
    ]


def evaluation_assumptions(
    *,
    unit_of_privacy: str,
    neighboring_relation: str,
    n_samples_stated: bool,
    network: bool = False,
    origin: Mapping[str, Any] | None = None,
    grouped: bool = False,
) -> list[str]:
    """List the assumptions behind a private evaluation.

    Parameters
    ----------
    unit_of_privacy : str
        Such as "one row" or "one patient".
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    n_samples_stated : bool
        Whether the number of test rows was given as public knowledge.
    network : bool, default=False
        Whether the model is a network, in place of a linear model.
    origin : mapping, optional
        As for `fit_assumptions`.
    grouped : bool, default=False
        Whether rows came in groups.

    Returns
    -------
    list of str
    """
    scored = (
        "each row went through the network alone, in float32 on one thread; its scores are the "
        "same to the last bit whatever rows are beside it, on one machine (a module that keeps "
        "nothing of earlier rows, checked on made-up rows)"
        if network
        else "a row's linear scores are sums of whole numbers, the same to the last bit whatever "
        "rows are beside it"
    )
    unit = "group" if grouped else "test row"
    count = (
        f"the number of {unit}s is public (replacing a {unit.removeprefix('test ')} keeps it)"
        if neighboring_relation == "replace_one"
        else "n_samples was stated as public knowledge"
        if n_samples_stated
        else f"the number of {unit}s is private; only noisy counts were released"
    )
    return [
        _counted(unit_of_privacy, "test row", grouped=grouped),
        "the model and its classes are public: fitted without these rows, or under a guarantee "
        "that is counted beside this one",
        _features(origin),
        count,
        "finite rows and labels inside the model's classes",
        f"{scored}; {_INTEGERS}; timing and memory use are not protected",
    ]


def summary_assumptions(
    *, unit_of_privacy: str, neighboring_relation: str, grouped: bool = False
) -> list[str]:
    """List the assumptions behind private counts and means; parameters as for a fit."""
    unit = "group" if grouped else "row"
    count = (
        f"the number of {unit}s is public (replacing a {unit} keeps it)"
        if neighboring_relation == "replace_one"
        else f"the number of {unit}s is private; only a noisy count was released"
    )
    return [
        _counted(unit_of_privacy, "row", grouped=grouped),
        "the list of classes and the length that rows are clipped at are public knowledge, chosen "
        "without looking at these rows",
        count,
        "finite rows and labels inside classes",
        f"{_INTEGERS}; timing and memory use are not protected",
    ]


def rows_of(unit_of_privacy: str, max_group_rows: int | None) -> str:
    """What a person has in the data."""
    if max_group_rows is None:
        return f"each {_person(unit_of_privacy)} contributes one row"
    return (
        f"{_group(unit_of_privacy)}, of which {max_group_rows} at most count, drawn by secret "
        "coins, and all together no more than one row"
    )


def _counted(unit_of_privacy: str, row: str, *, grouped: bool) -> str:
    if not grouped:
        return f"each {_person(unit_of_privacy)} contributes one {row}"
    return f"{_group(unit_of_privacy)}, which count as one in equal parts"


def _group(unit_of_privacy: str) -> str:
    person = _person(unit_of_privacy)
    person = "person" if person == "group of rows" else person
    return (
        f"all rows of a {person} are in one group, and no other row is; neighbouring data differ "
        f"in one {person} with all rows"
    )


def _count(neighboring_relation: str, n_samples_stated: bool, unit: str = "row") -> str:
    if neighboring_relation == "replace_one":
        return f"the number of {unit}s is public (replacing a {unit} keeps it)"
    if n_samples_stated:
        return "n_samples was stated as public knowledge"
    return f"the number of {unit}s is private; a noisy count was released where one was needed"


def _features(origin: Mapping[str, Any] | None) -> str:
    schema = None if origin is None else origin.get("preprocessing", {}).get("schema")
    if not isinstance(schema, Mapping):
        return "the features come from a backbone that was not trained on these rows"
    return (
        "the table's schema is public, and none of its bounds and values was read off these rows; "
        f"it says that they come from: {shown(str(schema.get('source')))}"
    )


def _classes(classes_stated: bool, classes_in_cache: bool) -> str:
    if classes_stated:
        return "the list of classes is public knowledge"
    if classes_in_cache:
        return "the class names in the feature cache's manifest are public knowledge"
    return (
        "NOT COVERED unless public: the list of classes was read from the data, and stands in the "
        "model file"
    )


def _columns(named: bool) -> list[str]:
    text = "the names of the columns are public knowledge: they stand in the model and its file"
    return [text] if named else []


def _person(unit_of_privacy: str) -> str:
    return "person" if unit_of_privacy == "one row" else unit_of_privacy.removeprefix("one ")
