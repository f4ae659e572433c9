"""Safetensors as bytes that depend on nothing but their content."""

from __future__ import annotations

import json

__all__ = ["in_order"]

_LENGTH_BYTES = 8


def in_order(data: bytes) -> bytes:
    """Sort a safetensors file's metadata, which the library writes in an order drawn anew.

    References
    ----------
    The format: https://github.com/huggingface/safetensors#format
    """
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = json.loads(data[_LENGTH_BYTES:end])
    metadata = dict(sorted(header.pop("__metadata__").items()))
    text = json.dumps(
        {"__metadata__": metadata, **header}, separators=(",", ":"), ensure_ascii=False
    ).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # tensors stay aligned
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + data[end:]
