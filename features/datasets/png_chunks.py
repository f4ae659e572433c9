"""PNG files without the texts in them, which can be larger than their pixels."""

__all__ = ["without_texts"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# Length, kind and checksum around a chunk's data.
_FRAME_BYTES = 12


def without_texts(data: bytes) -> bytes:
    """The same image without its text chunks; other files and damaged ones come back as they are.

    References
    ----------
    W3C, Portable Network Graphics (PNG) Specification, Third Edition, sections 5.3 and 11.3.3.
    """
    if not data.startswith(_SIGNATURE):
        return data
    kept = [_SIGNATURE]
    start = len(_SIGNATURE)
    while start < len(data):
        end = start + _FRAME_BYTES + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] not in _TEXTS:
            kept.append(data[start:end])
        start = end
    return b"".join(kept)
