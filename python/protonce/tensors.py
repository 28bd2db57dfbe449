"""Reads safetensors files with NumPy alone: a length, a JSON header, then the tensors one by one."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U8": "<u1",
    "BOOL": "?",
}
# Longer than any header of ours, and short enough to be read.
_LONGEST_HEADER = 100_000_000


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The tensors of a file, memory-mapped and read-only, and its metadata.

    Raises
    ------
    ValueError
        When it is no such file.
    OSError
        When it cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"{path} is no safetensors file: its header does not fit")
        try:
            header = json.loads(file.read(length))
            metadata = header.pop("__metadata__", {})
        except (ValueError, AttributeError, TypeError):
            raise ValueError(f"{path} is no safetensors file: its header is damaged") from None
    values = np.memmap(path, np.uint8, "r", 8 + length) if size > 8 + length else b""
    tensors = {}
    for name, entry in header.items():
        try:
            first, last = entry["data_offsets"]
            kind = np.dtype(_TYPES[entry["dtype"]])
            shape = tuple(entry["shape"])
            if first < 0 or last - first != math.prod(shape) * kind.itemsize:
                raise ValueError
            tensors[name] = np.ndarray(shape, kind, values, first)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path}: tensor {name!r} cannot be read") from None
    return tensors, metadata
