"""Any frozen `torch.nn.Module` as a backbone, from Python."""

import copy
import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpfc.features.backbones.row_independence import independent_rows
from dpfc.features.backbones.torch_forward import TorchNetwork, in_passes
from dpfc.features.backbones.torch_image import stack_images

if TYPE_CHECKING:
    import torch

    from dpfc.features.backbones.base import BackboneOptions

__all__ = ["TorchModuleBackbone", "load_torch_module"]

_SAMPLE_SIDE = 256
_CPU_ROWS, _CUDA_ROWS = 16, 256
# What a network may take, of what PyTorch reads from NumPy.
_DTYPES = ("uint8", "int32", "int64", "float16", "float32", "float64")


def load_torch_module(
    module: "torch.nn.Module",
    options: "BackboneOptions",
    *,
    prepare: Callable[[Any], NDArray[Any]] | None,
    name: str | None,
) -> "TorchModuleBackbone":
    """Backbone of a module; see `TorchModuleBackbone`.

    Raises
    ------
    ValueError
        If there is no `prepare`, or an option is given that only `prepare` can fulfil.
    """
    if not callable(prepare):
        raise ValueError(
            "a torch.nn.Module needs prepare=, a callable from an RGB image to the array that a "
            "batch is stacked of."
        )
    if options.image_size is not None:
        raise ValueError("image_size is up to prepare for a torch.nn.Module: leave it out.")
    if options.pooling not in ("auto", "mean"):
        raise ValueError(
            f"pooling {options.pooling!r} is not possible for a torch.nn.Module: it must return "
            "features (n, n_features), or maps (n, n_features, h, w), whose mean is taken."
        )
    return TorchModuleBackbone(
        module, prepare, name or type(module).__name__, options.device, options.dtype
    )


class TorchModuleBackbone:
    """A module and what makes its inputs.

    The module is copied: it can be trained on afterwards, the backbone stays as it is.

    Parameters
    ----------
    module : torch.nn.Module
        Returns features, shape (n, n_features), or maps, shape (n, n_features, h, w), whose
        mean over the map is taken.
    prepare : callable
        From an RGB image to an array of one shape and dtype.
    name : str
        For the manifest.
    device, dtype : str
        As in `load_backbone`.
    """

    modality = "image"
    # What `prepare` shrinks images to is unknown: they are decoded in full.
    decode_size: int | None = None

    def __init__(
        self,
        module: "torch.nn.Module",
        prepare: Callable[[Any], NDArray[Any]],
        name: str,
        device: str,
        dtype: str,
    ) -> None:
        self.spec = f"torch:{name}"
        self.preparer = prepare
        self._module = copy.deepcopy(module)
        self._network = TorchNetwork(lambda: _pooled(self._module), device, dtype)

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of names, dtypes, shapes and values of the module's state."""
        import torch

        digest = hashlib.sha256()
        for key, value in sorted(self._module.state_dict().items()):
            if not isinstance(value, torch.Tensor):  # what get_extra_state may return
                raise ValueError(
                    f"{self.spec}: {key} in the module's state is no tensor and has no checksum."
                )
            tensor = value.detach().cpu().contiguous()
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Name of `prepare`, whose code is the caller's, and the format computed in."""
        named = getattr(self.preparer, "__qualname__", type(self.preparer).__qualname__)
        return {
            "prepare": f"{getattr(self.preparer, '__module__', '')}.{named}",
            "input": f"{self._sample.dtype} {list(self._sample.shape)}",
            "pooling": "mean of maps",
            "compute_dtype": self._network.dtype,
        }

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return self._network.device

    @property
    def best_batch_size(self) -> int:
        """Rows a forward pass on this device."""
        return _CPU_ROWS if self.device == "cpu" else _CUDA_ROWS

    @cached_property
    def n_features(self) -> int:
        """Length of a feature row, from one gray image."""
        return int(self._checked(self._sample[None]).shape[1])

    @cached_property
    def _sample(self) -> NDArray[Any]:
        """A gray image, prepared."""
        from PIL import Image

        side = _SAMPLE_SIDE
        sample = self.preparer(Image.new("RGB", (side, side), (127, 127, 127)))
        if not isinstance(sample, np.ndarray):
            raise ValueError(f"prepare must return an ndarray, got {type(sample).__name__}.")
        if sample.dtype.name not in _DTYPES:
            raise ValueError(
                f"prepare must return an array of {', '.join(_DTYPES)}, got {sample.dtype}."
            )
        return sample

    @independent_rows(any_code=True)
    def embed(self, batch: NDArray[Any] | Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Features, shape (n, n_features), of prepared inputs, shape (n, ...).

        Raises
        ------
        ValueError
            If the batch is empty or of another shape or dtype than `prepare` makes of a gray
            image, or the module returns something else than features.
        OutOfDeviceMemoryError
            If the batch does not fit into the GPU's memory.
        """
        inputs = stack_images(batch, self._sample.shape, self._sample.dtype)
        return in_passes(self._checked, inputs, self.best_batch_size, self.device)

    def _checked(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        features = self._network(inputs)
        if features.ndim != 2 or len(features) != len(inputs):
            raise ValueError(
                f"{self.spec} must return one row of features an image, got an output of shape "
                f"{features.shape} for {len(inputs)} images."
            )
        return features


def _pooled(module: "torch.nn.Module") -> "torch.nn.Module":
    import torch

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            output = self.module(inputs)
            if not isinstance(output, torch.Tensor):
                raise ValueError(f"the module must return a tensor, got {type(output).__name__}.")
            return output.mean((2, 3)) if output.ndim == 4 else output

    return Pooled()
