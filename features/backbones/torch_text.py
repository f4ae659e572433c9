"""What every text backbone has in common: token ids in, pooled hidden states out."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpfc.features.backbones.row_independence import independent_rows
from dpfc.features.backbones.torch_forward import TorchBackbone, TorchModel, padded_rows

if TYPE_CHECKING:
    import torch

__all__ = ["TextModel", "TokenIds", "TorchTextBackbone", "pool_tokens"]

# Rows are padded to a multiple of this many tokens, whatever stands beside them.
_TOKENS_STEP = 16
# Rows a forward pass; rows of one padded length go through it together.
_CPU_ROWS, _CUDA_TOKENS = 8, 65536
_BATCH_ROWS = {"cpu": 256, "cuda": 1024}


class TokenIds:
    """From a text to the ids of its tokens, int32, shape (n_tokens,).

    Pickled, it is a path: the tokenizer is read where it is first used.

    Parameters
    ----------
    folder : Path
        Holds the tokenizer's files.
    max_tokens : int
        What follows this many tokens is cut off.
    prefix : str
        Put in front of every text.
    lower_case : bool
        Whether texts are lower-cased before the tokenizer's own normalisation.
    """

    def __init__(
        self, folder: Path, max_tokens: int, *, prefix: str = "", lower_case: bool = False
    ) -> None:
        self.folder = folder
        self.max_tokens = max_tokens
        self.prefix = prefix
        self.lower_case = lower_case
        self._lock = threading.Lock()
        self._tokenizer: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_lock", "_tokenizer")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock(), _tokenizer=None)

    def __call__(self, text: str) -> NDArray[np.int32]:
        """Ids, shape (n_tokens,) with at least one token, of a text."""
        if not isinstance(text, str):
            raise ValueError(f"a text backbone takes strings, got {type(text).__name__}.")
        ids = self._loaded().encode(self.prefix + text).ids
        return np.array(ids or [self._padding_id], dtype=np.int32)

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        names = ("max_tokens", "prefix", "lower_case")
        return {name: getattr(self, name) for name in names}

    def _loaded(self) -> Any:
        """The tokenizer, with its cut set once: setting it is not safe between threads."""
        with self._lock:
            if self._tokenizer is None:
                wrapper = _read_tokenizer(self.folder)
                self._padding_id = wrapper.pad_token_id or wrapper.eos_token_id or 0
                tokenizer = wrapper.backend_tokenizer
                tokenizer.no_padding()
                tokenizer.enable_truncation(self.max_tokens)
                if self.lower_case:
                    tokenizer.normalizer = _lower_case_first(tokenizer.normalizer)
                self._tokenizer = tokenizer
            return self._tokenizer


def _read_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_fast=True
        )
    # Damaged or foreign files raise whatever the tokenizers' classes raise.
    except Exception as error:
        raise ValueError(f"the tokenizer in {folder} cannot be read: {error}") from error
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ValueError(
            f"the tokenizer in {folder} has no tokenizer.json: save it anew with AutoTokenizer."
        )
    return tokenizer


def _lower_case_first(normalizer: Any) -> Any:
    """As sentence-transformers does it: special tokens of the model stay as they are."""
    from tokenizers.normalizers import Lowercase, Sequence

    return Sequence([Lowercase(), *([normalizer] if normalizer is not None else [])])


@dataclass(frozen=True)
class TextModel(TorchModel):
    """A model of texts; `padding_id` is the token that fills rows up, and is masked."""

    padding_id: int


class TorchTextBackbone(TorchBackbone):
    """A backbone of texts; `model.preparer` is a `TokenIds`."""

    modality = "text"
    decode_size: int | None = None

    def __init__(self, model: TextModel, device: str, dtype: str) -> None:
        super().__init__(model, device, dtype)
        self._padding_id = model.padding_id

    @property
    def best_batch_size(self) -> int:
        """Rows to embed at once: many, so that few passes are not full."""
        return _BATCH_ROWS[self.device]

    @independent_rows(any_code=False)
    def embed(self, batch: "Sequence[NDArray[Any]] | NDArray[Any]") -> NDArray[np.float32]:
        """Features, shape (n, n_features), of token ids.

        Rows of about the same length go through the network together, each padded to a multiple
        of 16 tokens of its own, so that a row's features do not depend on its neighbours.

        Parameters
        ----------
        batch : sequence of ndarray of int32, shape (n_tokens,)

        Raises
        ------
        ValueError
            If there are no rows, or a row is not token ids.
        OutOfDeviceMemoryError
            If a pass does not fit into the GPU's memory.
        """
        if len(batch) == 0 or not all(_are_ids(row, self.preparer.max_tokens) for row in batch):
            raise ValueError(
                "batch must hold at least one row, each an int32 array of 1 to "
                f"{self.preparer.max_tokens} token ids."
            )
        longest = self.preparer.max_tokens
        lengths = np.array([min(_padded_length(len(row)), longest) for row in batch])
        features = np.empty((len(batch), self.n_features), np.float32)
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            step = self._rows_a_pass(int(length))
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                features[part] = self._forward([batch[i] for i in part], int(length), step)
        return features

    def _rows_a_pass(self, length: int) -> int:
        return _CPU_ROWS if self.device == "cpu" else max(1, _CUDA_TOKENS // length)

    def _forward(self, rows: list[NDArray[Any]], length: int, step: int) -> NDArray[np.float32]:
        n_rows = padded_rows(len(rows), step, self.device)
        ids = np.full((n_rows, length), self._padding_id, np.int64)
        # A row with no token at all would divide by zero: rows that only pad have one.
        mask = np.zeros((n_rows, length), np.int64)
        mask[:, 0] = 1
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        return self._network(ids, mask)[: len(rows)]


def _are_ids(row: Any, max_tokens: int) -> bool:
    return (
        isinstance(row, np.ndarray)
        and row.dtype == np.int32
        and row.ndim == 1
        and 1 <= len(row) <= max_tokens
    )


def _padded_length(n_tokens: int) -> int:
    return -(-n_tokens // _TOKENS_STEP) * _TOKENS_STEP


def pool_tokens(tokens: "torch.Tensor", mask: "torch.Tensor", pooling: str) -> "torch.Tensor":
    """One row for each text.

    Parameters
    ----------
    tokens : torch.Tensor, shape (n, n_tokens, n_features)
        Hidden states.
    mask : torch.Tensor, shape (n, n_tokens)
        1 for tokens, 0 for the padding at the end.
    pooling : {"mean", "class_token", "last_token"}
        The mean over tokens, the first, or the last one.
    """
    import torch

    if pooling == "class_token":
        return tokens[:, 0]
    if pooling == "last_token":
        return tokens[torch.arange(len(tokens), device=tokens.device), mask.sum(1) - 1]
    weights = mask.unsqueeze(2).to(torch.float32)
    return (tokens.float() * weights).sum(1) / weights.sum(1)
