"""Small rows and networks that train in no time."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture
def rows():
    """Sixty rows of three classes that a linear layer tells apart, as floats."""
    generator = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = generator.normal(size=(60, 5)).astype(np.float32) * 0.3
    X[np.arange(60), y] += 2
    return X, y


@pytest.fixture
def module():
    """A network of two layers, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
