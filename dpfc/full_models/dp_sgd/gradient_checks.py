"""What a network does with rows, tried on made-up ones before any spend; never on private rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from dpfc.full_models.dp_sgd.clipping import make_clipped_sums, steady_kernels
from dpfc.full_models.dp_sgd.layer_checks import check_layers_see_rows, trained_layers
from dpfc.full_models.dp_sgd.made_up_rows import made_up_blocks, made_up_rows, repeatable
from dpfc.full_models.dp_sgd.module_checks import copy_of_module
from dpfc.full_models.dp_sgd.module_state import check_unchanged

__all__ = ["check_row_gradients"]

_ROWS = 3
_OTHER_ROWS = 5  # so that neither is a length of the module's own
_MOVE = 0.01
# Relative: what float32 sums in another order differ by.
_TOLERANCE = 1e-3
# Of the gradient as a whole, for parameters whose gradient is zero but for rounding.
_FLOOR = 1e-5
_SMALLEST = 1e-12  # of a layer's gradient: a shorter one is rounding


@steady_kernels()
def check_row_gradients(
    module: nn.Module,
    X: torch.Tensor,
    n_classes: int,
    clipping: str,
    *,
    tokens: int = 2,
    own: bool = True,
) -> None:
    """Clip the gradients of made-up rows as training will, and compare with one row at a time.

    Parameters
    ----------
    module : torch.nn.Module
        In training mode, on the device of `X`; it is not changed.
    X : torch.Tensor of shape (1, ...)
        Any row's shape and dtype; its values are not used.
    n_classes : int
    clipping : str
        One of `CLIPPINGS`.
    tokens : int, default=2
        How many tokens the module takes, where rows are whole numbers.
    own : bool, default=True
        Whether the module is a user's. Networks by name, which are tested with dpfc, are
        looked at less closely.

    Raises
    ------
    ValueError
        If scores have another shape than (n_rows, n_classes), a row's scores depend on other
        rows, the module keeps something of the rows, a trained parameter has no gradient, or
        clipped gradients are not what they should be. Names the layer.
    """
    module = copy_of_module(module)
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0  # its mask depends on a row's place in the batch
    _move_weights(module)
    rows, codes = made_up_rows(X, _ROWS, tokens=tokens), torch.arange(_ROWS) % n_classes
    codes = codes.to(X.device)
    if own:
        others = made_up_rows(X, _OTHER_ROWS, tokens=tokens)
        for block in (rows, others):
            with repeatable(X.device):
                check_layers_see_rows(module, block)
    _check_scores(module, rows, n_classes)
    blocks = made_up_blocks(X, _ROWS, tokens=tokens)
    if own:
        check_unchanged(module, [*blocks, others], lambda block: _both_ways(module, block))
        _check_draws(module, rows)
    _check_company(module, blocks if own else blocks[:3])
    expected = [_gradients(module, rows[i : i + 1], codes[i : i + 1]) for i in range(_ROWS)]
    _check_sums(module, rows, codes, expected, clipping)
    if own:
        _check_lengths(module, rows[:1], codes[:1], expected[0], clipping)


# -- scores ------------------------------------------------------------------------------


def _check_scores(module: nn.Module, rows: torch.Tensor, n_classes: int) -> None:
    scores = _scores(module, rows)
    if not isinstance(scores, torch.Tensor) or scores.shape != (_ROWS, n_classes):
        shape = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ValueError(
            f"the module must return scores of shape (n_rows, {n_classes}), one a class; for "
            f"{_ROWS} rows it returned {shape}."
        )


@torch.no_grad()
def _check_draws(module: nn.Module, rows: torch.Tensor) -> None:
    if not torch.equal(_scores(module, rows), _scores(module, rows, seed=1)):
        raise ValueError(
            "the module draws at random outside of its nn.Dropout layers, so that gradients of "
            "single rows cannot be checked. Use such layers (in place of "
            "torch.nn.functional.dropout, say), or augmentation."
        )


@torch.no_grad()
def _check_company(module: nn.Module, blocks: Sequence[torch.Tensor]) -> None:
    """Compare a row's scores by itself with those beside rows of all kinds, before and behind."""
    for block in blocks:
        if any(_leans(module, block[:1], company) for company in blocks):
            raise ValueError(
                "the module's scores of one row depend on the other rows of its batch, so that no "
                "gradient is one row's own. Leave out whatever looks at the whole batch, be it in "
                "a condition (if (x > 1).any())."
            )


def _leans(module: nn.Module, row: torch.Tensor, company: torch.Tensor) -> bool:
    try:
        alone = _scores(module, row)[0]
        before = _scores(module, torch.cat([row, company]))[0]
        behind = _scores(module, torch.cat([company, row]))[-1]
    except ValueError:  # rows that the module does not take
        return False
    room = _TOLERANCE * (1.0 + float(alone.abs().max()))
    apart = torch.stack([alone - before, alone - behind]).abs().max()
    return math.isfinite(room) and not float(apart) <= room


def _scores(module: nn.Module, rows: torch.Tensor, seed: int = 0) -> torch.Tensor:
    with repeatable(rows.device, seed):
        try:
            scores: torch.Tensor = module(rows)
        except Exception as error:  # whatever a module of the user's own raises
            raise ValueError(
                f"the module does not take rows of shape {tuple(rows.shape[1:])} and dtype "
                f"{rows.dtype}: {error}"
            ) from error
    return scores


def _both_ways(module: nn.Module, rows: torch.Tensor) -> None:
    """One pass as in training, forward and backward, and one as in use."""
    codes = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    _backward(module, rows, codes)
    module.eval()
    try:
        with torch.no_grad():
            _scores(module, rows)
    finally:
        module.train()


# -- gradients ---------------------------------------------------------------------------


def _gradients(module: nn.Module, row: torch.Tensor, code: torch.Tensor) -> dict[str, torch.Tensor]:
    found = _backward(module, row, code)
    for name, gradient in found.items():
        if gradient is None:
            raise ValueError(
                f"{name} has no part in the scores, and would get noise alone: freeze it "
                "(requires_grad_(False)) or remove it."
            )
    return {name: g.detach() for name, g in found.items() if g is not None}


def _backward(
    module: nn.Module, rows: torch.Tensor, codes: torch.Tensor
) -> dict[str, torch.Tensor | None]:
    """Gradients of the mean loss, one a trained parameter; None where it has no part in it."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    loss = functional.cross_entropy(_scores(module, rows), codes)
    if not loss.requires_grad:
        raise ValueError(
            "the module's scores have no gradient: they are detached from its parameters "
            "(.detach(), torch.no_grad(), or a way through NumPy)."
        )
    try:
        gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    except Exception as error:  # whatever a backward pass of the user's own raises
        raise ValueError(f"the module's backward pass fails: {error}") from error
    return dict(zip(trained, gradients, strict=True))


def _check_sums(
    module: nn.Module,
    rows: torch.Tensor,
    codes: torch.Tensor,
    expected: Sequence[dict[str, torch.Tensor]],
    clipping: str,
) -> None:
    """Compare sums of clipped gradients, every parameter by its own size."""
    norms = [_length(each.values()) for each in expected]
    clip_norm = max(0.5 * min(norms), 1e-6)
    try:
        totals = _clipped(module, rows, codes, clip_norm, clipping)
    except Exception as error:  # whatever Opacus raises at a layer
        other = "functorch" if clipping == "hooks" else "hooks"
        raise ValueError(
            f'clipping="{clipping}" does not work for this module'
            f"{_failing(module, rows, codes, clipping)} ({error}). Try "
            f'clipping="{other}", or build it of other layers.'
        ) from error
    factors = [min(1.0, clip_norm / max(norm, 1e-300)) for norm in norms]
    for name, total in totals.items():
        size = 0.0
        for factor, each in zip(factors, expected, strict=True):
            size += factor * _length([each[name]])
            total -= factor * each[name]
        if not float(total.norm()) <= _TOLERANCE * size + _FLOOR * clip_norm:
            raise ValueError(_wrong(clipping, name))


def _check_lengths(
    module: nn.Module,
    row: torch.Tensor,
    code: torch.Tensor,
    expected: dict[str, torch.Tensor],
    clipping: str,
) -> None:
    """Train one layer at a time: a part that lengths leave out is then not clipped at all.

    Beside longer parts of a gradient it would not show.
    """
    named = {id(p): name for name, p in module.named_parameters()}
    for _, _, own in list(trained_layers(module)):
        clip_norm = 0.5 * _length(expected[named[id(p)]] for p in own)
        if clip_norm < _SMALLEST or not math.isfinite(clip_norm):
            continue
        with _training_only(module, own):
            total = _length(_clipped(module, row, code, clip_norm, clipping).values())
        if not abs(total - clip_norm) <= _TOLERANCE * clip_norm:
            raise ValueError(_wrong(clipping, named[id(own[0])]))


@contextmanager
def _training_only(module: nn.Module, own: Sequence[nn.Parameter]) -> Iterator[None]:
    trained = [p for p in module.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(any(parameter is p for p in own))
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _clipped(
    module: nn.Module, rows: torch.Tensor, codes: torch.Tensor, clip_norm: float, clipping: str
) -> dict[str, torch.Tensor]:
    """Sums of clipped gradients, a parameter each, as training takes them."""
    sums = make_clipped_sums(clipping, module, clip_norm)
    try:
        totals = [torch.zeros_like(p, dtype=torch.float64) for p in sums.parameters]
        with repeatable(rows.device):
            sums.add(rows.unsqueeze(1), codes, totals)
    finally:
        sums.close()
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    return dict(zip(names, totals, strict=True))


def _failing(module: nn.Module, rows: torch.Tensor, codes: torch.Tensor, clipping: str) -> str:
    """Name the first layer that cannot be trained alone; empty where all can."""
    for name, layer, own in list(trained_layers(module)):
        try:
            with _training_only(module, own):
                _clipped(module, rows, codes, 1.0, clipping)
        except Exception:  # whatever Opacus raises at a layer
            return f", at layer {name!r} ({type(layer).__name__})"
    return ""


def _wrong(clipping: str, name: str) -> str:
    layer = name.rpartition(".")[0]
    where = f"layer {layer!r} ({name})" if layer else f"{name!r}"
    return (
        f'clipping="{clipping}" does not give the right gradients for this module, first at '
        f"{where}: a parameter may be used in two places, a forward pass may not go through its "
        "layers, or rows may not come first in what the layer takes. Try "
        'clipping="functorch", or change the module.'
    )


def _length(tensors: Iterable[torch.Tensor]) -> float:
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))


@torch.no_grad()
def _move_weights(module: nn.Module) -> None:
    """Take weights off zero, where gradients of what comes before them would say nothing."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if parameter.requires_grad:
            moves = torch.randn(parameter.shape, generator=generator)
            parameter.add_(moves.to(parameter), alpha=_MOVE)
