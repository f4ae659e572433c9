"""What a network must be like for its rows' gradients to be kept apart; checked before any spend.

The checks look at the module, and at what it makes of made-up rows; never at private ones.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from dpfc.full_models.clipping import make_clipped_sums

__all__ = ["check_module", "check_row_gradients"]

_ROWS = 3
_MOVE = 0.01
# Relative to the longest gradient: what float32 sums in another order differ by.
_TOLERANCE = 1e-3
_REPLACEMENTS = {
    nn.modules.batchnorm._BatchNorm: "torch.nn.GroupNorm",
    nn.MultiheadAttention: "opacus.layers.DPMultiheadAttention",
    nn.LSTM: "opacus.layers.DPLSTM",
    nn.GRU: "opacus.layers.DPGRU",
    nn.RNN: "opacus.layers.DPRNN",
}


def check_module(module: object) -> nn.Module:
    """Refuse modules whose gradients are not a row's own, or are not real numbers.

    Raises
    ------
    TypeError
        If it is no module.
    ValueError
        If a layer mixes rows or hides gradients, a parameter is complex, of half precision or
        not finite, or nothing is trained. Says which, and what to take in its place.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"module must be a torch.nn.Module or a network's name, got {type(module).__name__}."
        )
    for name, part in module.named_modules():
        _check_layer(name or "the module", part)
    trained = 0
    for name, parameter in module.named_parameters():
        if parameter.is_complex():
            raise ValueError(
                f"{name} is complex: Opacus would give complex parameters too little noise, and "
                "none in the imaginary part in its secure mode. Store pairs of real numbers."
            )
        if parameter.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} is {parameter.dtype}; use float32 (module.float()).")
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"{name} holds NaN or infinity before training has begun.")
        trained += parameter.numel() if parameter.requires_grad else 0
    if trained == 0:
        raise ValueError(
            "the module has no parameter to train: all are frozen (requires_grad=False)."
        )
    return module


def _check_layer(name: str, part: nn.Module) -> None:
    for kind, replacement in _REPLACEMENTS.items():
        if isinstance(part, kind) and any(p.requires_grad for p in part.parameters()):
            why = (
                "normalises over the rows of a batch, so that no gradient is one row's own"
                if "Norm" in replacement
                else "does not give the gradients of single rows"
            )
            raise ValueError(
                f"{name} ({type(part).__name__}) {why}. Use {replacement}, or let "
                "opacus.validators.ModuleValidator.fix(module) replace it."
            )
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        raise ValueError(
            f"{name} ({type(part).__name__}) keeps statistics of private rows, frozen or not. Use "
            "torch.nn.GroupNorm, or opacus.validators.ModuleValidator.fix(module)."
        )
    if getattr(part, "track_running_stats", False):
        raise ValueError(
            f"{name} ({type(part).__name__}) keeps running statistics of private rows; use "
            "track_running_stats=False."
        )


def check_row_gradients(module: nn.Module, X: torch.Tensor, n_classes: int, clipping: str) -> None:
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

    Raises
    ------
    ValueError
        If scores have another shape than (n_rows, n_classes), a row's scores depend on other
        rows, the module keeps something of the rows, a trained parameter has no gradient, or
        clipped gradients are not what they should be.
    """
    module = copy.deepcopy(module)
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0  # its mask depends on a row's place in the batch
    _move_weights(module)
    rows, codes = _made_up(X), torch.arange(_ROWS, device=X.device) % n_classes
    buffers = [buffer.clone() for buffer in module.buffers()]
    _check_scores(module, rows, n_classes)
    expected = [_gradient(module, rows[i : i + 1], codes[i : i + 1]) for i in range(_ROWS)]
    for before, after in zip(buffers, module.buffers(), strict=True):
        if not torch.equal(before, after):
            raise ValueError(
                "the module changes a buffer while it trains; it would carry what private rows "
                "left there, without noise. Remove it."
            )
    norms = [math.sqrt(sum(float(g.double().square().sum()) for g in each)) for each in expected]
    clip_norm = max(0.5 * min(norms), 1e-6)
    try:
        sums = make_clipped_sums(clipping, module, clip_norm)
        totals = [torch.zeros_like(p, dtype=torch.float64) for p in sums.parameters]
        with _repeatable(rows.device):
            sums.add(rows.unsqueeze(1), codes, totals)
    except (NotImplementedError, RuntimeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(
            f'clipping="{clipping}" does not work for this module ({error}). Try '
            'clipping="functorch" or "hooks".'
        ) from error
    factors = [min(1.0, clip_norm / max(norm, 1e-300)) for norm in norms]
    for place, total in enumerate(totals):
        wanted = sum(f * each[place].double() for f, each in zip(factors, expected, strict=True))
        if float((total - wanted).abs().max()) > _TOLERANCE * clip_norm:
            raise ValueError(
                f'clipping="{clipping}" does not give the right gradients for this module: a '
                "parameter may be used in two places, or a forward pass may not go through its "
                'layers. Try clipping="functorch", or change the module.'
            )


def _check_scores(module: nn.Module, rows: torch.Tensor, n_classes: int) -> None:
    scores = _scores(module, rows)
    if not isinstance(scores, torch.Tensor) or scores.shape != (_ROWS, n_classes):
        shape = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ValueError(
            f"the module must return scores of shape (n_rows, {n_classes}), one a class; for "
            f"{_ROWS} rows it returned {shape}."
        )
    others = rows.clone()
    others[1:] = rows[:1]
    changed = _scores(module, others)
    if float((scores[0] - changed[0]).detach().abs().max()) > _TOLERANCE:
        raise ValueError(
            "the module's scores of one row depend on the other rows of its batch, so that no "
            "gradient is one row's own. Leave out whatever looks at the whole batch."
        )


def _scores(module: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    with _repeatable(rows.device):
        try:
            scores: torch.Tensor = module(rows)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise ValueError(
                f"the module does not take rows of shape {tuple(rows.shape[1:])} and dtype "
                f"{rows.dtype}: {error}"
            ) from error
    return scores


def _gradient(module: nn.Module, row: torch.Tensor, code: torch.Tensor) -> list[torch.Tensor]:
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    loss = functional.cross_entropy(_scores(module, row), code)
    gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    unused = [name for name, g in zip(trained, gradients, strict=True) if g is None]
    if unused:
        raise ValueError(
            f"{unused[0]} has no part in the scores, and would get noise alone: freeze it "
            "(requires_grad_(False)) or remove it."
        )
    return [g.detach() for g in gradients if g is not None]


@torch.no_grad()
def _move_weights(module: nn.Module) -> None:
    """Take weights off zero, where gradients of what comes before them would say nothing."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if parameter.requires_grad:
            moves = torch.randn(parameter.shape, generator=generator)
            parameter.add_(moves.to(parameter), alpha=_MOVE)


def _made_up(X: torch.Tensor) -> torch.Tensor:
    """Rows of the shape and kind of `X`, the same for every run."""
    generator = torch.Generator().manual_seed(0)
    shape = (_ROWS, *X.shape[1:])
    if X.is_floating_point():
        return torch.rand(shape, generator=generator).to(X)
    return torch.randint(2, shape, generator=generator).to(X)


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """Leave the global generator as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield
