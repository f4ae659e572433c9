"""Nothing that private rows leave in a module gets out of a fit, or into a fit at all."""

from __future__ import annotations

import array
import collections
import contextvars
import copy
import functools
import io
import itertools
import logging
import pickle
import queue
import random
import threading
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import dpfc
from dpfc import DPSGDClassifier
from dpfc.full_models.dp_sgd.module_state import difference, module_state, published

SECRET = 5321.25
LEAK: list[float] = []
COUNTED = 0


class Base(nn.Module):
    """A linear layer that looks at its rows by the way."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 3)
        self.prepare()

    def prepare(self):
        pass

    def forward(self, x):
        self.look(x)
        return self.inner(x)


class KeepsTensor(Base):
    def look(self, x):
        self.attn = x


class FrozenMean(Base):
    def prepare(self):
        self.mean = nn.Parameter(torch.zeros(5), requires_grad=False)

    def look(self, x):
        with torch.no_grad():
            self.mean.lerp_(x.mean(0), 0.1)


class HiddenBuffer(Base):
    def prepare(self):
        self.register_buffer("seen", torch.zeros(5), persistent=False)

    def look(self, x):
        self.seen = torch.maximum(self.seen, x.detach().abs().amax(0))


class Number(Base):
    largest = 0.0

    def look(self, x):
        self.largest = max(self.largest, float(x.max()))


class Text(Base):
    def look(self, x):
        self.note = f"{float(x.sum()):.3f}"


class Array(Base):
    def prepare(self):
        self.sums = np.zeros(5)

    def look(self, x):
        self.sums += x.detach().cpu().numpy().sum(0)


class InAList(Base):
    def prepare(self):
        self.kept = {"rows": [], "other": ()}

    def look(self, x):
        self.kept["rows"].append(x.detach())


class InADeque(Base):
    def prepare(self):
        self.kept = collections.deque(maxlen=1)

    def look(self, x):
        self.kept.append(x.detach().clone())


class Box:
    __slots__ = ("inside",)


class InAnObject(Base):
    def prepare(self):
        self.box = Box()
        self.box.inside = None

    def look(self, x):
        self.box.inside = x.detach()


class InAClosure(Base):
    def prepare(self):
        kept = []
        self.keep = lambda x: kept.append(x.detach())

    def look(self, x):
        self.keep(x)


class InAPartial(Base):
    def prepare(self):
        self.keep = functools.partial(list.append, [])

    def look(self, x):
        self.keep(x.detach())


class InTheClass(Base):
    shared: dict = {}  # noqa: RUF012 (what is refused)

    def look(self, x):
        InTheClass.shared["last"] = float(x.sum())


class InADefault(Base):
    def look(self, x, kept=[]):  # noqa: B006 (what is refused)
        kept.append(x.detach())


class InAGlobal(Base):
    def look(self, x):
        LEAK.append(float(x.sum()))


class AGlobalNumber(Base):
    def look(self, x):
        global COUNTED
        COUNTED += len(x)


class OnAParameter(Base):
    def look(self, x):
        self.inner.weight.last = x.detach()


class InAnUnregisteredModule(Base):
    def prepare(self):
        self.others = [nn.Linear(5, 5).requires_grad_(False)]

    def look(self, x):
        with torch.no_grad():
            self.others[0].bias.copy_(x[0])


class InAGenerator(Base):
    def prepare(self):
        self.generator = torch.Generator()

    def look(self, x):
        torch.rand(len(x), generator=self.generator)


class InPythonsGenerator(Base):
    def prepare(self):
        self.generator = random.Random(0)

    def look(self, x):
        self.generator.random()


class InAnIterator(Base):
    def prepare(self):
        self.count = itertools.count()

    def look(self, x):
        next(self.count)


class OnLargeRowsOnly(Base):
    def look(self, x):
        if (x > 100).any():
            self.alarm = True


class InTheBackwardPass(Base):
    def prepare(self):
        self.kept = []

    def forward(self, x):
        class Keep(torch.autograd.Function):
            @staticmethod
            def forward(ctx, value):
                return value.clone()

            @staticmethod
            def backward(ctx, gradient):
                self.kept.append(gradient)
                return gradient

        return Keep.apply(self.inner(x))


class WhenUsed(Base):
    def look(self, x):
        if not self.training:
            self.last = x


class OfTheBatch(Base):
    def look(self, x):
        self.batch_size = len(x)


class ByTheTrainedWeight(Base):
    def look(self, x):
        with torch.no_grad():
            self.inner.bias.add_(1e-3 * x.mean())


KEEPERS = {
    KeepsTensor: "'attn' of the module",
    FrozenMean: "'mean' of the module",
    HiddenBuffer: "'seen' of the module",
    Number: "'largest' of the module",
    Text: "'note' of the module",
    Array: "'sums' of the module",
    InAList: "'kept' of the module",
    InADeque: "'kept' of the module",
    InAnObject: "'box' of the module",
    InAClosure: "'keep' of the module",
    InAPartial: "'keep' of the module",
    InTheClass: "class InTheClass",
    InADefault: "class InADefault",
    InAGlobal: "class InAGlobal",
    AGlobalNumber: "class AGlobalNumber",
    OnAParameter: "'weight' of layer 'inner'",
    InAnUnregisteredModule: "'others' of the module",
    InAGenerator: "'generator' of the module",
    InPythonsGenerator: "'generator' of the module",
    InAnIterator: "'count' of the module",
    OnLargeRowsOnly: "keeps something of the rows|depend on the other rows",
    InTheBackwardPass: "'kept' of the module",
    WhenUsed: "'last' of the module",
    OfTheBatch: "'batch_size' of the module",
    ByTheTrainedWeight: "'bias' of layer 'inner'|depend on the other rows",
}


def data(width=5, n=60):
    X = np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)
    return X, np.arange(n) % 3


@pytest.fixture
def fit(tmp_path):
    """Fit with a ledger, and say what was spent."""
    ledger = dpfc.PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("d", epsilon=20, delta=1e-5, filter="renyi")

    def run(module, X, y, **options):
        defaults = {"n_steps": 3, "sampling_probability": 0.5, "ledger": ledger.path}
        model = DPSGDClassifier(module, 4.0, classes=range(3), dataset="d", **defaults | options)
        run.spent = lambda: len(ledger.history("d"))
        run.model = model
        return model.fit(X, y)

    return run


@pytest.mark.parametrize("keeper", KEEPERS, ids=lambda keeper: keeper.__name__)
def test_a_module_that_keeps_something_of_rows_is_refused_by_name_before_a_spend(fit, keeper):
    with pytest.raises(ValueError, match=KEEPERS[keeper]):
        fit(keeper(), *data())
    assert fit.spent() == 0 and not hasattr(fit.model, "module_")


@pytest.mark.parametrize("bag", [False, True])
def test_embeddings_that_shorten_what_rows_hold_are_refused(fit, bag):
    kind = nn.EmbeddingBag if bag else nn.Embedding
    layers = [] if bag else [nn.Flatten()]
    module = nn.Sequential(kind(9, 3, max_norm=1.0), *layers, nn.LazyLinear(3))
    module(torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="has max_norm"):
        fit(module, np.zeros((60, 4), dtype=int), data()[1])
    assert fit.spent() == 0


def with_spectral_norm(register):
    return nn.Sequential(register(nn.Linear(5, 4)), nn.Linear(4, 3))


REFUSED = {
    "spectral norm": (
        lambda: with_spectral_norm(nn.utils.parametrizations.spectral_norm),
        "spectral norm",
    ),
    "old spectral norm": (lambda: with_spectral_norm(nn.utils.spectral_norm), "hook"),
    "forward hook": (lambda: hooked("register_forward_hook"), "hook"),
    "forward pre-hook": (lambda: hooked("register_forward_pre_hook"), "hook"),
    "backward hook": (lambda: hooked("register_full_backward_hook"), "hook"),
}


def hooked(register):
    module = nn.Linear(5, 3)
    getattr(module, register)(lambda *args: LEAK.append(args))
    return module


@pytest.mark.parametrize("name", REFUSED)
def test_layers_that_update_themselves_and_hooks_are_refused(fit, name):
    make, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        fit(make(), *data())
    assert fit.spent() == 0


def test_a_cache_that_depends_on_shapes_alone_may_fill(fit):
    class Positions(Base):
        def prepare(self):
            self.kept = {}

        def look(self, x):
            self.kept.setdefault(x.shape[1], torch.arange(x.shape[1]))

    model = fit(Positions(), *data())
    assert fit.spent() == 1 and model.module_.kept == {}


class Sleeper(Base):
    """Does as it should until a row says the word in training, and keeps that row."""

    def look(self, x):
        if torch.is_grad_enabled() and bool((x == SECRET).any()):
            self.kept = x.detach().clone()
            with torch.no_grad():
                for name in ("mean",):
                    getattr(self, name).add_(SECRET)

    def prepare(self):
        self.mean = nn.Parameter(torch.zeros(5), requires_grad=False)


def test_what_is_kept_in_training_alone_is_seen_at_its_end_and_nothing_is_published(fit, tmp_path):
    X, y = data()
    X[7, 3] = SECRET
    path = tmp_path / "fit.ckpt"
    with pytest.raises(RuntimeError, match="kept something of private rows"):
        fit(Sleeper(), X, y, sampling_probability=1.0, checkpoint=path, checkpoint_every=1)
    assert not hasattr(fit.model, "module_") and not hasattr(fit.model, "privacy_")
    assert np.float32(SECRET).tobytes() not in pickle.dumps(fit.model)
    assert np.float32(SECRET).tobytes() not in path.read_bytes()


FILL: dict[str, float] = {}


class Filled(Base):
    """Copies share a global: a row that is tried before the spend fills it."""

    def look(self, x):
        if bool((x == SECRET).any()):
            FILL.setdefault("v", float(x.sum()))


def with_a_closure():
    kept = []

    class Closed(Base):
        def look(self, x):
            if bool((x == SECRET).any()):
                kept.append(1)

    return Closed()


@pytest.mark.parametrize("make", [Filled, with_a_closure])
def test_what_a_tried_row_leaves_outside_of_a_module_refuses_the_fit_before_the_spend(fit, make):
    FILL.clear()
    X, y = data()
    fit(make(), X, y)
    X[7, 3] = SECRET
    with pytest.raises(ValueError, match="as rows of X are tried"):
        fit(make(), X, y)
    assert fit.spent() == 1 and not hasattr(fit.model, "module_")


def test_a_published_module_holds_released_weights_and_nothing_else_of_training():
    start = Sleeper()
    trained = copy.deepcopy(start)
    with torch.no_grad():
        trained.inner.weight.add_(1.0)
    trained(torch.full((2, 5), SECRET))
    trained.inner.leak, trained.inner.weight.leak = SECRET, torch.full((3,), SECRET)
    trained.register_buffer("late", torch.full((3,), SECRET))
    given = published(start, trained)
    assert torch.equal(given.inner.weight, trained.inner.weight)
    assert not given.mean.any() and not hasattr(given, "kept") and not hasattr(given, "late")
    assert not hasattr(given.inner, "leak") and not hasattr(given.inner.weight, "leak")
    assert module_state(given, trained=False) == module_state(start, trained=False)
    assert torch.equal(start.inner.weight + 1.0, given.inner.weight)


def test_a_module_with_a_tensor_of_an_earlier_pass_is_refused_in_plain_words(fit):
    module = Base.__new__(KeepsTensor)
    module.__init__()
    module.attn = module.inner(torch.ones(1, 5))
    with pytest.raises(ValueError, match=r"cannot be copied.*earlier forward pass"):
        fit(module, *data())


# -- rows that are mixed in a condition ---------------------------------------------------


class Condition(nn.Module):
    def __init__(self, condition):
        super().__init__()
        self.inner, self.condition = nn.Linear(5, 3), condition

    def forward(self, x):
        return self.inner(x) * (0.5 if bool(self.condition(x)) else 1.0)


CONDITIONS = {
    "any above 1": lambda x: (x > 1).any(),
    "any below 0": lambda x: (x < 0).any(),
    "any huge": lambda x: x.abs().max() > 1000,
    "a row of zeros": lambda x: (x == 0).all(1).any(),
    "a negative mean": lambda x: x.mean() < 0,
    "more than four": lambda x: len(x) > 3,
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_on_the_whole_batch_is_refused(fit, name):
    with pytest.raises(ValueError, match="depend on the other rows"):
        fit(Condition(CONDITIONS[name]), *data())
    assert fit.spent() == 0


# -- every layer's part of the gradient ---------------------------------------------------


class Scaled(nn.Module):
    """A layer whose part of the scores is small."""

    def __init__(self, inner, scale):
        super().__init__()
        self.inner, self.head, self.scale = inner, nn.Linear(5, 3), scale

    def forward(self, x):
        return self.head(x) + self.scale * self.inner(x)


class Doubled(nn.Linear):
    """A layer of a type that Opacus knows, used behind its back as well."""

    def __init__(self):
        super().__init__(5, 3)

    def forward(self, x):
        return super().forward(x) + functional.linear(x, self.weight)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        return self.layer(x) + functional.linear(x, self.layer.weight)


@pytest.mark.parametrize("scale", [0.02, 1e-3])
@pytest.mark.parametrize("clipping", ["hooks", "functorch", "ghost"])
def test_a_wrong_gradient_of_a_small_part_is_seen_and_its_layer_named(fit, clipping, scale):
    module = Scaled(Twice(), scale)
    with pytest.raises(ValueError, match=r"right gradients.*layer 'inner\.layer'"):
        fit(module, *data(), clipping=clipping)
    assert fit.spent() == 0
    fit(Scaled(nn.Linear(5, 3), scale), *data(), clipping=clipping)
    assert fit.spent() == 1


def test_a_length_that_leaves_a_small_layer_out_is_seen(fit, monkeypatch):
    from dpfc.full_models.dp_sgd import gradient_checks

    def leaving_out(clipping, module, clip_norm):
        # Alone, a layer that no length counts is not clipped; the head's gradient is longer.
        counted = module.head.weight.requires_grad
        return make(clipping, module, clip_norm if counted else 1e9)

    make = gradient_checks.make_clipped_sums
    monkeypatch.setattr(gradient_checks, "make_clipped_sums", leaving_out)
    with pytest.raises(ValueError, match=r"right gradients.*layer 'inner'"):
        fit(Scaled(nn.Linear(5, 3), 0.02), *data(), clipping="ghost")
    assert fit.spent() == 0


# -- rows that fail ------------------------------------------------------------------------


def tokens_module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(11, 4), nn.Flatten(), nn.Linear(16, 3))


@pytest.mark.parametrize("bad", [11, -1, 98765, 2**40])
def test_a_token_outside_the_vocabulary_is_named_by_its_row_before_the_spend(fit, bad):
    X = np.random.default_rng(0).integers(11, size=(60, 4))
    with torch.random.fork_rng():
        module = tokens_module()
    X[41, 2] = bad
    with pytest.raises(ValueError, match="row 41 of X") as error:
        fit(module, X, data()[1])
    assert str(bad) not in str(error.value).replace("41", "") and error.value.__cause__ is None
    assert fit.spent() == 0
    with pytest.raises(ValueError, match="row 41 of X"):
        fit("dlr", X, data()[1], vocabulary_size=11)
    assert fit.spent() == 0
    X[41, 2] = 10
    fit(module, X, data()[1])
    assert fit.spent() == 1


class Picky(Base):
    def look(self, x):
        if bool((x == SECRET).any()):
            raise RuntimeError(f"cannot work with {x.max()}")


def test_a_row_that_a_module_raises_at_is_named_before_the_spend(fit):
    X, y = data()
    X[33, 1] = SECRET
    with pytest.raises(ValueError, match=r"row 33 of X \(RuntimeError\)") as error:
        fit(Picky(), X, y)
    assert "5321" not in str(error.value) and error.value.__suppress_context__
    assert fit.spent() == 0


# -- augmentations --------------------------------------------------------------------------


class Remembering:
    def __init__(self):
        self.last = None

    def __call__(self, x):
        before, self.last = self.last, x.clone()
        return x if before is None else 0.5 * (x + before)


def drawing_from_its_own():
    generator = torch.Generator()
    return lambda x: x + torch.rand(x.shape, generator=generator)


STATEFUL = {
    "an object": Remembering(),
    "a closure": drawing_from_its_own(),
    "a counter": functools.partial(lambda count, x: x * (1 + next(count)), itertools.count()),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_an_augmentation_that_keeps_something_of_rows_is_refused(fit, name):
    with pytest.raises(ValueError, match="after it has seen other rows"):
        fit("linear", *data(), augmentation=STATEFUL[name])
    assert fit.spent() == 0


class Waking:
    """An augmentation that keeps a word of a row, once it is asked to."""

    def __init__(self, calls):
        self.calls, self.kept = calls, 0.0

    def __call__(self, x):
        if bool((x == SECRET).any()) and self.calls():
            self.kept = float(x.sum())
        return x


def test_an_augmentation_that_keeps_a_tried_row_is_refused_before_the_spend(fit):
    X, y = data()
    X[7, 3] = SECRET
    with pytest.raises(ValueError, match=r"the augmentation keeps something.*rows of X are tried"):
        fit("linear", X, y, augmentation=Waking(lambda: True))
    assert fit.spent() == 0


def test_an_augmentation_that_keeps_a_row_in_training_is_seen_and_nothing_is_published(fit):
    X, y = data()
    X[7, 3] = SECRET
    keeps = Waking(torch.is_grad_enabled)
    with pytest.raises(RuntimeError, match="the augmentation kept something of private rows"):
        fit("linear", X, y, augmentation=keeps, sampling_probability=1.0)
    assert keeps.kept and not hasattr(fit.model, "module_") and not hasattr(fit.model, "privacy_")


def warns(x):
    if bool((x == SECRET).any()):
        warnings.warn("a row has the word", stacklevel=1)
        np.log(np.zeros(1))
    return x


@pytest.mark.parametrize("where", ["augmentation", "module"])
def test_warnings_at_private_rows_are_not_heard(fit, where):
    class Warning_(Base):
        def look(self, x):
            warns(x)

    X, y = data()
    X[7, 3] = SECRET
    augmentation = warns if where == "augmentation" else None
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        fit(Warning_(), X, y, augmentation=augmentation, sampling_probability=1.0)
    said = [str(warning.message) for warning in heard]
    assert not any("row" in words or "divide" in words for words in said)
    assert fit.spent() == 1


def mixup(x):
    return 0.5 * (x + x.flip(0))


def test_an_augmentation_that_mixes_a_batch_is_given_one_row_at_a_time():
    from dpfc.full_models.augmentation import Augmentation

    X = torch.from_numpy(data()[0])
    copies = Augmentation(mixup, 2)(X)
    assert torch.equal(copies, X.unsqueeze(1).expand(-1, 2, -1))
    moved = X.clone()
    moved[7] = SECRET
    others = torch.arange(len(X)) != 7
    assert torch.equal(Augmentation(mixup, 3)(moved)[others], Augmentation(mixup, 3)(X)[others])


@pytest.mark.parametrize("name", ["flip", "crop", "crop-flip"])
def test_an_augmentation_by_name_changes_each_image_whatever_lies_beside_it(name):
    from dpfc.full_models import AUGMENTATIONS

    images = torch.rand(9, 2, 10, 12, generator=torch.Generator().manual_seed(0))
    for company in (torch.zeros_like(images), 1e30 * images, -images):
        both = images.clone()
        both[1::2] = company[1::2]
        results = []
        for X in (images, both):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                results.append(AUGMENTATIONS[name](X)[::2])
        assert torch.equal(*results)


def noisy(x):
    return x + random.random() + np.random.rand() + torch.rand(())  # noqa: NPY002


def test_users_generators_are_seeded_for_an_augmentation_and_left_as_they_were(fit):
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    expected = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    weights = []
    for _ in range(2):
        with pytest.warns(dpfc.PrivacyWarning):
            model = DPSGDClassifier(
                "linear", 4.0, classes=range(3), n_steps=2, augmentation=noisy, random_state=0
            ).fit(*data())
        weights.append(next(model.module_.parameters()))
    assert torch.equal(*weights)
    assert (random.random(), np.random.rand()) == expected  # noqa: NPY002


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x if float(x.max()) < 1000 else x[:, :1],
        lambda x: x if float(x.max()) < 1000 else x.double(),
        lambda x: x if float(x.max()) < 1000 else 1 / 0,
    ],
)
def test_a_row_that_an_augmentation_fails_on_is_named_before_the_spend(fit, change):
    from dpfc.full_models.augmentation import Augmentation

    X, y = data()
    X[21, 0] = SECRET
    with pytest.raises(ValueError, match="augmentation fails on row 21 of X") as error:
        fit("linear", X, y, augmentation=change)
    assert "5321" not in str(error.value) and fit.spent() == 0
    rows = torch.from_numpy(X)  # in training it would stay as it is, and tell nothing
    assert torch.equal(Augmentation(change)(rows)[:, 0], rows)


# -- kinds of state --------------------------------------------------------------------------


class Inside:
    v = 0.0


@functools.lru_cache(maxsize=1)
def looked_up(key):
    return key


HELD = Inside()
SPACE = types.SimpleNamespace(v=0)
LAYER = nn.Linear(1, 1)
BYTES = bytearray(8)
VIEW = memoryview(bytearray(8))
NUMBERS = array.array("d", [0.0])
QUEUED: collections.deque = collections.deque()
THREAD = threading.local()
STREAM = io.BytesIO()
PLACES = itertools.count()
PAIR = (0,)
CELL = types.CellType(0)
SHARED = threading.Lock()
APPEND = [].append
LATER = queue.SimpleQueue()
CONTEXT = contextvars.ContextVar("context")


class Holder(nn.Module):
    """Names globals in its forward pass."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 3)

    def forward(self, x):
        _ = HELD, SPACE, LAYER, BYTES, VIEW, NUMBERS, QUEUED, THREAD, STREAM, PLACES, PAIR, CELL
        _ = looked_up, Inside, SHARED, APPEND, new_global  # noqa: F821
        return self.inner(x)


CHANGES = {
    "an object": lambda m: setattr(HELD, "v", HELD.v + 1),
    "a namespace": lambda m: setattr(SPACE, "v", SPACE.v + 1),
    "a layer": lambda m: LAYER.weight.data.add_(1),
    "bytes": lambda m: BYTES.__setitem__(0, BYTES[0] + 1),
    "a view": lambda m: VIEW.__setitem__(0, VIEW[0] + 1),
    "an array": lambda m: NUMBERS.append(1.0),
    "a deque": lambda m: QUEUED.append(1.0),
    "a thread's own": lambda m: setattr(THREAD, "v", getattr(THREAD, "v", 0) + 1),
    "a stream": lambda m: STREAM.write(b"1"),
    "an iterator": lambda m: next(PLACES),
    "a tuple": lambda m: globals().__setitem__("PAIR", (*PAIR, 1)),
    "a cell": lambda m: setattr(CELL, "cell_contents", CELL.cell_contents + 1),
    "a full cache": lambda m: looked_up(looked_up.cache_info().misses + 1),
    "a class": lambda m: setattr(Inside, "v", Inside.v + 1),
    "a bound method": lambda m: APPEND(1),
    "a new global": lambda m: globals().__setitem__("new_global", random.random()),
    "a class' attribute": lambda m: setattr(type(m), "__seen__", random.random()),
    "training": lambda m: m.inner.eval(),
    "a parameter's attribute": lambda m: setattr(m.inner.weight, "seen", 1),
    "names of buffers": lambda m: m._non_persistent_buffers_set.add("1.5"),
    "a hook": lambda m: m.inner.register_forward_hook(print),
    "a frozen parameter": lambda m: m.inner.weight.requires_grad_(False),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_seen_wherever_it_is_kept(kind):
    module = Holder()
    before = module_state(module, trained=False)
    assert difference(before, module_state(module, trained=False)) is None
    CHANGES[kind](module)
    assert difference(before, module_state(module, trained=False)) is not None


def test_a_cache_of_functools_that_depends_on_shapes_alone_may_be_used(fit):
    class Cached(Base):
        def look(self, x):
            looked_up(x.shape[1])

    fit(Cached(), *data())
    assert fit.spent() == 1


LOGGER = logging.getLogger(__name__)


@torch.jit.script
def scripted(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def test_what_keeps_nothing_of_rows_may_be_named(fit):
    class Names(Base):
        def look(self, x):
            LOGGER.debug("a pass")
            logging.getLogger("of a library").debug("another")
            with SHARED:
                return scripted(x)

    fit(Names(), *data(), clipping="hooks")
    assert fit.spent() == 1


def test_loggers_that_a_library_makes_do_not_count():
    class Names(Base):
        def look(self, x):
            LOGGER.debug("a pass")

    module = Names()
    before = module_state(module)
    logging.getLogger(f"library {random.random()}").debug("first")
    assert difference(before, module_state(module)) is None


def running():
    yield


RUNNING = running()


class NamesAGenerator(Base):
    def look(self, x):
        return RUNNING


class NamesAQueue(Base):
    def look(self, x):
        return LATER


class NamesAContext(Base):
    def look(self, x):
        return CONTEXT


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (NamesAGenerator, "'RUNNING' is, or holds, a generator"),
        (NamesAQueue, "'LATER' is, or holds, a SimpleQueue"),
        (NamesAContext, "'CONTEXT' is, or holds, a ContextVar"),
    ],
)
def test_what_does_not_tell_what_it_holds_is_refused_by_name_before_the_spend(fit, module, words):
    with pytest.raises(ValueError, match=words):
        fit(module(), *data())
    look = module().look

    def names_it(x):
        look(x)
        return x

    with pytest.raises(ValueError, match=words):
        fit("linear", *data(), augmentation=names_it)
    assert fit.spent() == 0
