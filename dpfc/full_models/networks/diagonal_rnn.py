"""Diagonal linear recurrent networks: sequences by convolution, with real parameters only."""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["DiagonalLinearRNN", "DiagonalRNNClassifier"]

_WIDTH = 64
_STATES = 64
_DEPTH = 3
_SHORTEST_STEP, _LONGEST_STEP = 1e-4, 1e-1


class DiagonalLinearRNN(nn.Module):
    """Linear recurrence with a diagonal complex matrix, from sequences to sequences.

    In every channel h, with the same λ for all channels::

        x_k[n] = λ[n] x_{k-1}[n] + u_k[h]
        y_k[h] = Re Σ_n w[h, n] x_k[n] + d[h] u_k[h]

    which is a convolution with the kernel K_k[h] = Re Σ_n w[h, n] λ[n]^k, computed by FFT.

    λ = exp(-exp(a) + iθ) is stored as its log-negative-log magnitude a and its angle θ, and w
    as two real matrices. No parameter is complex, on purpose: Opacus draws noise of the
    parameter's shape with `torch.normal`, which gives complex entries half of the variance in
    the real and half in the imaginary part, too little for the sensitivity; and in secure mode,
    where it adds real draws up, none at all in the imaginary part. Pairs of reals get the noise
    that the accountant counts.

    Magnitudes start at exp(-δ/2) with δ log-uniform in [1e-4, 0.1], and w at N(0, 1/N²), as in
    the paper. Angles start evenly on [0, π) rather than on the whole circle: as only the real
    part counts, a λ and its conjugate give the same kernels.

    Parameters
    ----------
    width : int
        Channels H, of input and output.
    n_states : int
        N, complex states.

    References
    ----------
    Gupta, Mehta, Berant (2022), Simplifying and Understanding State Space Models with Diagonal
    Linear RNNs.
    """

    def __init__(self, width: int, n_states: int):
        super().__init__()
        low, high = math.log(_SHORTEST_STEP), math.log(_LONGEST_STEP)
        log_step = low + (high - low) * torch.rand(n_states)
        self.log_decay = nn.Parameter(log_step - math.log(2.0))
        self.angle = nn.Parameter(torch.arange(n_states) * (math.pi / n_states))
        self.output_real = nn.Parameter(torch.randn(width, n_states) / n_states)
        self.output_imag = nn.Parameter(torch.randn(width, n_states) / n_states)
        self.direct = nn.Parameter(torch.randn(width))

    def kernel(self, length: int) -> torch.Tensor:
        """Compute K of shape (width, length)."""
        steps = torch.arange(length, device=self.angle.device, dtype=self.angle.dtype)
        magnitudes = torch.exp(-torch.outer(self.log_decay.exp(), steps))
        angles = torch.outer(self.angle, steps)
        real = self.output_real @ (magnitudes * angles.cos())
        return real - self.output_imag @ (magnitudes * angles.sin())

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:
        """Map sequences (n, length, width) to sequences of that shape."""
        length = sequences.shape[1]
        if len(sequences) == 0:  # which MKL's FFT refuses
            return sequences
        # Twice the length: the circular convolution must not wrap around into the past. Places
        # lie side by side in memory, which makes transforms nearly twice as fast.
        size = 2 * length
        inputs = torch.fft.rfft(sequences.mT.contiguous(), n=size)
        product = inputs * torch.fft.rfft(self.kernel(length), n=size)
        past: torch.Tensor = torch.fft.irfft(product, n=size)[..., :length].mT
        return past + sequences * self.direct

    @torch.no_grad()
    def recurrence(self, sequences: torch.Tensor) -> torch.Tensor:
        """Compute what `forward` does step by step, as it is written above."""
        factors = torch.polar(torch.exp(-self.log_decay.exp()), self.angle)
        weights = torch.complex(self.output_real, self.output_imag)
        states = torch.zeros_like(factors)
        outputs = []
        for now in sequences.unbind(1):
            states = factors * states + now[..., None]
            outputs.append((weights * states).real.sum(-1) + self.direct * now)
        return torch.stack(outputs, dim=1)


class _Block(nn.Module):
    """Layer norm, recurrence, GELU and a linear mix of channels, beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_WIDTH)
        self.recurrent = DiagonalLinearRNN(_WIDTH, _STATES)
        self.activation = nn.GELU()
        self.mix = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:
        inner = self.mix(self.activation(self.recurrent(self.norm(sequences))))
        total: torch.Tensor = sequences + inner
        return total


class DiagonalRNNClassifier(nn.Module):
    """Three blocks of diagonal linear recurrence, the mean over places, and a linear layer.

    Parameters
    ----------
    channels : int
        Of rows (n, length, channels); rows (n, length) have one.
    n_classes : int
    vocabulary_size : int or None, default=None
        Rows are then int64 tokens (n, length), each mapped to a learned vector.

    References
    ----------
    Gupta, Mehta, Berant (2022), Simplifying and Understanding State Space Models with Diagonal
    Linear RNNs.
    """

    def __init__(self, channels: int, n_classes: int, vocabulary_size: int | None = None):
        super().__init__()
        self.tokens = vocabulary_size is not None
        self.encoder = (
            nn.Linear(channels, _WIDTH)
            if vocabulary_size is None
            else nn.Embedding(vocabulary_size, _WIDTH)
        )
        self.blocks = nn.Sequential(*(_Block() for _ in range(_DEPTH)))
        self.norm = nn.LayerNorm(_WIDTH)
        self.head = nn.Linear(_WIDTH, n_classes)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Map rows (n, length, channels) or (n, length) to logits (n, n_classes)."""
        if not self.tokens and rows.dim() == 2:
            rows = rows.unsqueeze(-1)
        logits: torch.Tensor = self.head(self.norm(self.blocks(self.encoder(rows))).mean(dim=1))
        return logits
