"""Parameters of the estimators: declared once, and told once in all docstrings."""

from __future__ import annotations

import ast
import inspect
import re
import typing

import pytest
from sklearn.base import clone

from dpfc import (
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
    DPSearchCV,
    DPSGDClassifier,
)
from dpfc.linear.base import PrivateLinearClassifier

LINEAR = [DPFCClassifier, DPGradientClassifier, DPLeastSquaresClassifier, DPNewtonClassifier]
POSITIONAL = {
    **{kind: ["epsilon", "delta"] for kind in LINEAR},
    DPSGDClassifier: ["module", "epsilon", "delta"],
    DPSearchCV: ["estimator", "param_grid"],
}


def told(kind: type, section: str) -> dict[str, str]:
    """What a docstring says of each name in a section: its type, default and text."""
    block = inspect.getdoc(kind).split(f"\n{section}\n{'-' * len(section)}\n")[1]
    block = re.split(r"\n\n\w+\n--+\n", block)[0]
    return dict(re.findall(r"^(\w+)( : .*(?:\n    .*)*)", block, re.MULTILINE))


@pytest.mark.parametrize("kind", POSITIONAL)
def test_the_signature_is_as_the_docstring_tells(kind):
    parameters = inspect.signature(kind).parameters
    texts = told(kind, "Parameters")
    assert list(parameters) == list(texts)
    stated = {n: m[1] for n, t in texts.items() if (m := re.search(r"default=(\S+)$", t, re.M))}
    assert len(stated) > len(texts) / 2
    defaults = {name: parameters[name].default for name in stated}
    assert defaults == {name: ast.literal_eval(default) for name, default in stated.items()}


@pytest.mark.parametrize("kind", POSITIONAL)
def test_few_parameters_are_positional_and_all_have_types_that_can_be_read(kind):
    parameters = inspect.signature(kind).parameters.values()
    assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == POSITIONAL[kind]
    types = typing.get_type_hints(kind.__init__, include_extras=True)
    assert types == {p.name: p.annotation for p in parameters}
    assert types["epsilon"] is float


def test_what_all_linear_classifiers_have_has_one_text():
    shared = inspect.signature(PrivateLinearClassifier).parameters
    for section, names in (("Parameters", shared), ("Attributes", told(LINEAR[2], "Attributes"))):
        first, *others = ([told(kind, section)[name] for name in names] for kind in LINEAR)
        assert all(other == first for other in others), section


def test_what_the_other_estimators_have_in_common_with_them_has_the_same_text():
    linear, network, search = (
        told(kind, "Parameters") for kind in (DPFCClassifier, DPSGDClassifier, DPSearchCV)
    )
    for name in ("epsilon", "delta", "classes", "neighboring_relation", "dataset"):
        assert network[name] == linear[name]
    for name in ("delta", "dataset", "random_state"):
        assert search[name] == linear[name]


@pytest.mark.parametrize("kind", LINEAR)
def test_a_parameter_that_an_old_pickle_lacks_gets_no_default(kind):
    model = kind()
    state = model.__getstate__()
    del state["nonnegative_root"]
    old = kind.__new__(kind)
    old.__setstate__(state)
    with pytest.raises(AttributeError):
        old._row_map()


@pytest.mark.parametrize("kind", LINEAR)
def test_a_model_is_equal_to_itself_alone_and_is_shown_as_scikit_learn_does(kind):
    model = kind(epsilon=2.0)
    assert model != clone(model) and len({model, clone(model)}) == 2
    assert repr(model) == f"{kind.__name__}(epsilon=2.0)"
