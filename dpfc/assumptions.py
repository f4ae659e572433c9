"""What a reader has to accept for a guarantee to hold, in plain sentences."""

from __future__ import annotations

__all__ = ["evaluation_assumptions", "fit_assumptions", "summary_assumptions"]


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

    Returns
    -------
    list of str
    """
    count = (
        "the number of rows is public (replacing a row keeps it)"
        if neighboring_relation == "replace_one"
        else "n_samples was stated as public knowledge"
        if n_samples_stated
        else "the number of rows is private; a noisy count was released where one was needed"
    )
    classes = (
        "the list of classes is public knowledge"
        if classes_stated
        else "the class names in the feature cache's manifest are public knowledge"
        if classes_in_cache
        else "NOT COVERED unless public: the list of classes was read from the data"
    )
    return [
        f"each {_person(unit_of_privacy)} contributes one row",
        "the features come from a backbone that was not trained on these rows",
        classes,
        *(["public_features hold no private rows"] if public_features else []),
        count,
        "the search's candidates, and all other hyperparameters, were chosen without looking at "
        "these rows"
        if searched
        else "hyperparameters were chosen without looking at these rows",
        f"finite rows and labels inside classes; rows bounded to l2 norm {l2_bound:g}",
        "float64 sums; rounding is covered by numerical_slack, noise is on a public grid; "
        "timing and memory use are not protected",
    ]


def evaluation_assumptions(
    *, unit_of_privacy: str, neighboring_relation: str, n_samples_stated: bool
) -> list[str]:
    """List the assumptions behind a private evaluation.

    Parameters
    ----------
    unit_of_privacy : str
        Such as "one row" or "one patient".
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    n_samples_stated : bool
        Whether the number of test rows was given as public knowledge.

    Returns
    -------
    list of str
    """
    count = (
        "the number of test rows is public (replacing a row keeps it)"
        if neighboring_relation == "replace_one"
        else "n_samples was stated as public knowledge"
        if n_samples_stated
        else "the number of test rows is private; only noisy counts were released"
    )
    return [
        f"each {_person(unit_of_privacy)} contributes one test row",
        "the model and its classes are public: fitted without these rows, or under a guarantee "
        "that is counted beside this one",
        "the features come from a backbone that was not trained on these rows",
        count,
        "finite rows and labels inside the model's classes",
        "rows are scored one by one in whole numbers and counted without rounding; noise is on a "
        "public grid; timing and memory use are not protected",
    ]


def summary_assumptions(*, unit_of_privacy: str, neighboring_relation: str) -> list[str]:
    """List the assumptions behind private counts and means; parameters as for a fit."""
    count = (
        "the number of rows is public (replacing a row keeps it)"
        if neighboring_relation == "replace_one"
        else "the number of rows is private; only a noisy count was released"
    )
    return [
        f"each {_person(unit_of_privacy)} contributes one row",
        "the list of classes and the length that rows are clipped at are public knowledge, chosen "
        "without looking at these rows",
        count,
        "finite rows and labels inside classes",
        "float64 sums; rounding is covered by numerical_slack, noise is on a public grid; "
        "timing and memory use are not protected",
    ]


def _person(unit_of_privacy: str) -> str:
    return "person" if unit_of_privacy == "one row" else unit_of_privacy.removeprefix("one ")
