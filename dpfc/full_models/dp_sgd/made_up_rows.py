"""Made-up rows of the shape and kind of private ones, to try modules on; the same for every run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["made_up_blocks", "made_up_rows", "repeatable", "vocabulary"]

_HUGE = 1e4


def made_up_rows(like: torch.Tensor, n_rows: int, *, tokens: int = 2) -> torch.Tensor:
    """Rows of uniform numbers, or of tokens.

    Parameters
    ----------
    like : torch.Tensor of shape (1, ...)
        Of the shape, dtype and device wanted; its values are not used.
    n_rows : int
    tokens : int, default=2
        How many tokens there are, where rows are whole numbers.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (n_rows, *like.shape[1:])
    if like.is_floating_point():
        return torch.rand(shape, generator=generator).to(like)
    return torch.randint(tokens, shape, generator=generator).to(like)


def made_up_blocks(like: torch.Tensor, n_rows: int, *, tokens: int = 2) -> list[torch.Tensor]:
    """Blocks of rows that differ in all that a module may look at: size, sign, zeros, tokens."""
    first = made_up_rows(like, n_rows, tokens=tokens)
    zeros = torch.zeros_like(first)
    if not like.is_floating_point():
        return [first, zeros, zeros + (tokens - 1), tokens - 1 - first]
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(first.shape, generator=generator).to(first)
    return [first, zeros, normal, _HUGE * normal, zeros + _HUGE, zeros - _HUGE]


def vocabulary(module: nn.Module, like: torch.Tensor) -> int:
    """How many tokens a module takes: those of the largest embedding that its rows fit; or 2.

    Parameters
    ----------
    module : torch.nn.Module
        A copy on the CPU that may be spoilt.
    like : torch.Tensor of shape (1, ...)
    """
    sizes = {part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)}
    if like.is_floating_point():
        return 2
    for size in sorted(sizes, reverse=True):
        try:
            with torch.no_grad():
                module(torch.full_like(like, size - 1))
        except Exception:  # whatever a module of the user's own raises at a token
            continue
        return size
    return 2


@contextmanager
def repeatable(device: torch.device, seed: int = 0) -> Iterator[None]:
    """Seed PyTorch's global generators, and leave them as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
