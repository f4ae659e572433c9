"""Modules of users' own: what they are told where theirs cannot be trained, or is another one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.layers import DPLSTM, DPMultiheadAttention
from opacus.validators import ModuleValidator
from torch import nn

import dpfc
from dpfc import DPSGDClassifier
from dpfc.exceptions import ModelFileError
from dpfc.full_models.dp_sgd.clipping import CLIPPINGS


def fit(module, X, **options):
    model = DPSGDClassifier(module, 4.0, classes=range(3), n_steps=2, **options)
    return model.fit(X, np.arange(len(X)) % 3)


def numbers(*shape):
    return np.random.default_rng(0).normal(size=(30, *shape)).astype(np.float32)


def compiled_in_place():
    module = nn.Linear(5, 3)
    module.compile()
    return module


class Dropping(nn.Linear):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5, self.training)


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"note": 1}


WRAPPED = {
    "functional dropout": (lambda: Dropping(5, 3), r"nn\.Dropout layers"),
    "extra state": (lambda: Extra(5, 3), "get_extra_state"),
    "opacus": (lambda: GradSampleModule(nn.Linear(5, 3)), r"module\._module"),
    "compiled": (lambda: torch.compile(nn.Linear(5, 3)), r"module\._orig_mod"),
    "a compiled layer": (
        lambda: nn.Sequential(torch.compile(nn.Linear(5, 4)), nn.Linear(4, 3)),
        r"^0 is the result of torch\.compile",
    ),
    "compiled in place": (compiled_in_place, "compiled in place"),
    "torchscript": (lambda: torch.jit.script(nn.Linear(5, 3)), "TorchScript"),
    "float64": (lambda: nn.Linear(5, 3).double(), r"float64.*module\.float"),
    "lazy": (lambda: nn.LazyLinear(3), "no shape yet"),
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)),
        r"torch\.nn\.LayerNorm",
    ),
    "a fixed batch norm": (
        lambda: ModuleValidator.fix(
            nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
        ),
        r"layer '1' \(GroupNorm\).*LayerNorm",
    ),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("name", WRAPPED)
def test_what_cannot_be_trained_is_refused_with_what_to_pass(name):
    make, words = WRAPPED[name]
    with pytest.raises(ValueError, match=words):
        fit(make(), numbers(5))


class Positions(nn.Module):
    def __init__(self, positions):
        super().__init__()
        self.tokens, self.places = nn.Embedding(11, 6), nn.Embedding(8, 6)
        self.head, self.positions = nn.Linear(6, 3), positions

    def forward(self, x):
        return self.head((self.tokens(x) + self.places(self.positions(x))).mean(1))


class PlacesFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.linear(x.transpose(0, 1)).mean(0))


@pytest.mark.parametrize("clipping", ["hooks", "functorch", "ghost"])
def test_positions_need_one_entry_a_row_and_the_layer_is_named(clipping):
    X = np.random.default_rng(0).integers(11, size=(30, 8))
    once = Positions(lambda x: torch.arange(x.shape[1])[None])
    with pytest.raises(ValueError, match=r"layer 'places' \(Embedding\).*repeat\(len\(x\), 1\)"):
        fit(once, X, clipping=clipping)
    with pytest.raises(ValueError, match=r"layer 'linear' \(Linear\) is given 7 rows"):
        fit(PlacesFirst(), numbers(7, 5), clipping=clipping)
    each = Positions(lambda x: torch.arange(x.shape[1]).repeat(len(x), 1))
    assert fit(each, X, clipping=clipping).privacy_.private


class Sequences(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.head = inner, nn.Linear(4, 3)

    def forward(self, x):
        inputs = (x, x, x) if isinstance(self.inner, DPMultiheadAttention) else (x,)
        return self.head(self.inner(*inputs)[0].mean(1))


FINE = {
    "lstm": (lambda: Sequences(DPLSTM(4, 4, batch_first=True)), (7, 4)),
    "attention": (lambda: Sequences(DPMultiheadAttention(4, 2, batch_first=True)), (7, 4)),
    "weight norm": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)), nn.Linear(4, 3)
        ),
        (5,),
    ),
    "group norm": (
        lambda: nn.Sequential(nn.Linear(5, 8), nn.GroupNorm(2, 8), nn.Linear(8, 3)),
        (5,),
    ),
    "dropout": (lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 3)), (5,)),
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
        ),
        (1, 6, 6),
    ),
}


@pytest.mark.parametrize("name", FINE)
@pytest.mark.parametrize("clipping", ["hooks", "functorch"])
def test_modules_that_can_be_trained_still_are(name, clipping):
    make, shape = FINE[name]
    assert fit(make(), numbers(*shape), clipping=clipping).privacy_.private


def test_a_model_file_with_another_module_says_what_differs(tmp_path):
    path = tmp_path / "model.safetensors"
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    X = numbers(5)
    model = fit(module, X)
    model.save(path)
    others = {
        "shape": (
            nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)),
            r"0\.bias has the shape \(6,\), and \(4,\) in the file \(and 2 more\)",
        ),
        "fewer": (nn.Linear(5, 3), r"0\.\w+ is missing in it"),
        "more": (
            nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3), nn.Linear(3, 3)),
            r"3\.\w+ is not in the file",
        ),
    }
    for other, words in others.values():
        with pytest.raises(ModelFileError, match=words) as error:
            dpfc.load_model(path, module=other)
        assert "damaged" not in str(error.value)
    assert (dpfc.load_model(path, module=module).predict(X) == model.predict(X)).all()


def test_a_prediction_for_an_unknown_token_says_so():
    X = np.random.default_rng(0).integers(11, size=(30, 8))
    model = fit(Positions(lambda x: torch.arange(x.shape[1]).repeat(len(x), 1)), X)
    for bad in (11, -1):
        with pytest.raises(ValueError, match="token that the network does not know"):
            model.predict(np.full((2, 8), bad))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Bilinear(5, 5, 3)

    def forward(self, x):
        return self.layer(x, x)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        grown = torch.exp(self.layer(x))
        product = grown * grown
        grown.add_(1.0)
        return product


class BackwardRaises(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2.0 * x

    @staticmethod
    def backward(ctx, gradient):
        raise KeyError("missing")


class OwnBackward(nn.Linear):
    def forward(self, x):
        return BackwardRaises.apply(super().forward(x))


class Detached(nn.Linear):
    def forward(self, x):
        return super().forward(x).detach()


@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize(
    "make, words",
    [
        (TwoInputs, r"at layer 'layer' \(Bilinear\).*build it of other layers"),
        (InPlace, "backward pass fails: .*inplace operation"),
        (lambda: OwnBackward(5, 3), "backward pass fails: 'missing'"),
        (lambda: Detached(5, 3), "scores have no gradient"),
    ],
)
def test_a_backward_pass_that_fails_is_a_value_error_before_the_spend(make, words, clipping):
    with pytest.raises(ValueError, match=words):
        fit(make(), numbers(5), clipping=clipping)


def test_the_statement_says_what_a_module_of_one_s_own_must_not_do_with_a_pass():
    said = "joins rows of a pass in no way that made-up rows do not show"
    for module, options, there in (
        (nn.Linear(5, 3), {}, True),
        (nn.Linear(5, 3), {"physical_batch_size": 1}, False),
        ("linear", {}, False),
    ):
        rests_on = fit(module, numbers(5), **options).privacy_.rests_on
        assert any(said in assumption for assumption in rests_on) is there
