"""Where a backbone computes, and in which floating-point format."""

from dpfc._support.validation import Choice, check

__all__ = ["DEVICES", "DTYPES", "check_device", "has_cuda", "resolve_device", "resolve_dtype"]

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")


def has_cuda() -> bool:
    """Whether PyTorch finds a CUDA GPU."""
    import torch

    return torch.cuda.is_available()


def check_device(device: str) -> None:
    """Refuse an unknown device, and CUDA where there is none.

    Raises
    ------
    ValueError
        Says which devices there are.
    """
    check("device", device, Choice(DEVICES))
    if device == "cuda" and not has_cuda():
        raise ValueError(
            "device 'cuda' is not available: PyTorch finds no CUDA GPU. Use device='cpu' or 'auto'."
        )


def resolve_device(device: str) -> str:
    """``"cpu"`` or ``"cuda"``; "auto" takes CUDA where there is one."""
    if device != "auto":
        return device
    return "cuda" if has_cuda() else "cpu"


def resolve_dtype(dtype: str, device: str) -> str:
    """Format that matrix products are computed in.

    "auto" is float32 on a CPU, and bfloat16 on CUDA (float16 where the GPU has no bfloat16).

    Raises
    ------
    ValueError
        If a CPU shall compute in 16 bits: that would be slower there, not faster.
    """
    if dtype == "auto":
        if device == "cpu":
            return "float32"
        import torch

        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    if device == "cpu" and dtype != "float32":
        raise ValueError(f"dtype {dtype!r} needs a CUDA GPU: use dtype='auto' or 'float32'.")
    return dtype
