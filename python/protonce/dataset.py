"""Images, by their names, labels and bytes: folders, archives, lists and packed files alike."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import _core

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def cache_objects(
    folder: str | os.PathLike[str] | None = None, *, gigabytes: float = 20
) -> None:
    """Says where what is fetched from object stores and web servers is kept.

    It holds for what is opened from now on. With room for all of the images they are fetched once,
    and not once an epoch.

    Parameters
    ----------
    folder : str or path, optional
        Unless given, ``protonce/objects`` in your cache folder (``XDG_CACHE_HOME`` or ``~/.cache``).
    gigabytes : float
        How much is kept there at most.
    """
    _core.cache_objects(folder, int(gigabytes * 1e9))


class Dataset:
    """An ordered collection of images, some or all of which may carry a label.

    Parameters
    ----------
    data : str or path
        A folder (nested), a ``.tar`` (read in place, never unpacked), a text list with
        ``path[<tab>label]`` a line, or a packed file; ``#SUBFOLDER`` for a part of it. In folders
        and archives the first folder below the root is the label. Images are ordered by name, byte
        by byte, so that an index means the same image on every machine. Archives, tables and packed
        files can also lie in object stores and on web servers: ``s3://BUCKET/KEY``, ``gs://``,
        ``az://`` and ``https://``.

    Raises
    ------
    FileNotFoundError
        When there is nothing at the path.
    OSError
        When it cannot be read.
    ValueError
        When it is none of these, or holds no images.
    """

    def __init__(self, data: str | os.PathLike[str]):
        self._images = _core.Dataset(os.fspath(data))

    @classmethod
    def _of(cls, images: _core.Dataset) -> Dataset:
        dataset = cls.__new__(cls)
        dataset._images = images
        return dataset

    def __len__(self) -> int:
        return len(self._images)

    def __repr__(self) -> str:
        return f"Dataset({self._images.argument!r}): {len(self)} images"

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their numbers; empty without labels."""
        return self._images.classes

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of every image, -1 for none: int64 [images]."""
        import numpy as np

        return np.asarray(self._images.labels)

    @property
    def names(self) -> list[str]:
        """The name of every image: its path under the root."""
        return self._images.names

    def name(self, index: int) -> str:
        """The name of one image.

        Raises
        ------
        IndexError
            When there is no image of that index.
        """
        return self._images.name(index)

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image, as they are stored.

        Raises
        ------
        IndexError
            When there is no image of that index.
        OSError
            When it cannot be read any more.
        """
        return self._images.read(index)
