"""Features and embeddings of images."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Embeddings:
    """Rows of numbers, one per image that could be read.

    Attributes
    ----------
    rows : ndarray
        float32 [images, dim].
    index : ndarray
        The index of each image in the data: int64 [images].
    labels : ndarray
        The class of each, -1 for none: int64 [images].
    names : list of str
        The name of each.
    """

    rows: NDArray[np.float32]
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    names: list[str]

    def __len__(self) -> int:
        return len(self.rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        import numpy as np

        return np.array(self.rows, dtype) if copy else np.asarray(self.rows, dtype)


def embed(
    weights: Any,
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    output: str = "features",
    batch_size: int = 256,
    **settings: Any,
) -> Embeddings:
    """Features of images by a trained encoder.

    Parameters
    ----------
    weights : Run, str or path
        A run, one of its checkpoints, a safetensors file or a ``.pth``.
    data : str or path
        What `Dataset` takes.
    out : path, optional
        A ``.safetensors`` file to keep them in, which goes on where it was killed.
    output : {"features", "embeddings"}
        Backbone features transfer best; embeddings are what training compared.
    batch_size : int
        Images per forward pass.
    **settings
        Further flags of ``protonce embed``: ``device``, ``precision``, ``loader_threads``.

    Returns
    -------
    Embeddings

    Raises
    ------
    ProgramError
        When the program fails, with its sentence.
    ValueError
        When `out` is no ``.safetensors`` file.
    """
    if out is not None and Path(out).suffix != ".safetensors":
        raise ValueError(f"out is {os.fspath(out)}: expected a file that ends in .safetensors")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "embeddings.safetensors") if out is None else Path(out)
        given = {
            "weights": getattr(weights, "folder", weights),
            "data": data,
            "out": file,
            "output": output,
            "batch_size": batch_size,
            **settings,
        }
        program.run(["embed", *program.flags(given)])
        return _read(file, output)


def _read(file: Path, output: str) -> Embeddings:
    import numpy as np

    from . import tensors

    found, _ = tensors.read(file)
    rows = np.array(found[output])
    text, ends = bytes(found["names"]), [0, *found["name_ends"].tolist()]
    names = [text[first:last].decode() for first, last in zip(ends, ends[1:])]
    return Embeddings(rows, np.array(found["index"]), np.array(found["labels"]), names)
