"""Batches of random views for a training loop, and the views of one image."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import _core
from .dataset import Dataset

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OUTPUTS = ("torch", "numpy")
_DTYPES = ("float32", "uint8")
_CROPS = ("random", "centre")


class UnreadableImageWarning(UserWarning):
    """An image cannot be read and is left out of its batches."""


class Loader:
    """Two random views of every image, batch by batch, made on all cores while you train.

    Replaces a data set, its transforms, a sampler and a ``DataLoader``::

        for epoch in range(epochs):
            for (query, key), indices in loader:
                ...

    The views are those of MoCo and PCL and equal to torchvision's and Pillow's, pixel for pixel. A
    view depends on (seed, epoch, index) alone: the same batches come out for any number of threads,
    and as `protonce pretrain` makes them of the same settings (with ``drop_last=False``).

    There is nothing to pickle, no ``num_workers`` and no ``if __name__ == "__main__"``: threads make
    the views, without Python's lock. A loader may be used in a forked child, and left at any batch.

    Parameters
    ----------
    data : str or path
        What `Dataset` takes: a folder, a ``.tar``, a list, a packed file, ``#SUBFOLDER``.
    image_size : int, optional
        Side of a view in pixels. Default: the preset's, 224, or 32 of ``"small"``.
    batch_size : int
        Images per batch in this process.
    preset : {"v2", "v1", "small"}
        Settings to start from: MoCo v2 and PCL v2; version 1 of both; v2 without blur at 32 px.
    crops : {"random", "centre"}
        ``"centre"`` gives one view, the crop of evaluations, to compute features with a model.
    shuffle : bool or {"auto", "full", "local"}
        A new order every epoch. ``"local"`` reads an archive in stretches, for data larger than
        memory; ``True`` is ``"auto"``, which does so where it is needed.
    drop_last : bool
        Leave out the images that do not fill a batch. Otherwise the last batch is smaller, and
        images too few for a batch of their own join the one before.
    seed : int
        What all random choices follow from.
    threads : int
        Threads that make views; 0: one per core.
    rank, world_size : int, optional
        Which part of every batch of ``world_size * batch_size`` images is this process's. Default:
        those of ``torch.distributed`` where that is initialised, else 0 and 1.
    output : {"torch", "numpy"}, optional
        Torch tensors, or NumPy arrays. Default: tensors where torch can be imported.
    dtype : {"float32", "uint8"}
        Normalised numbers, or the pixels from 0 to 255.
    pin_memory : bool
        Copy tensors to page-locked memory, from which transfers to a GPU can overlap.
    **settings
        Every setting of views under its name in ``protonce pretrain --help``, with ``_`` for ``-``:
        ``crop_scale``, ``crop_ratio``, ``jitter``, ``jitter_probability``, ``grey_probability``,
        ``blur_probability``, ``blur_sigma``, ``solarise_probability``, ``solarise_threshold``,
        ``flip_probability``, ``local_views``, ``local_size``, ``local_crop_scale``, ``mean``,
        ``std``, ``stats``, ``views``, ``eval_resize``; and ``per_class`` and ``sample`` to use only
        some of the images.

    Yields
    ------
    views : list of Tensor or ndarray
        ``[query, key, local view, ...]``, or ``[crop]``. As tensors [images, 3, side, side] in
        channels-last memory, as arrays [images, side, side, 3]. Both are writable and share the memory
        they were made in; it is used again once nothing refers to it.
    indices : Tensor or ndarray
        Which images: int64 [images]. `Loader.dataset` has their names and labels.

    Raises
    ------
    ValueError
        When a setting does not exist or is out of range, or there are too few images for a batch.
    FileNotFoundError
        When there is nothing at the path.

    Notes
    -----
    Every iteration is of the next epoch, unless `set_epoch` says which. An image that cannot be read
    is left out of its batch, with a warning the first time.
    """

    def __init__(
        self,
        data: str | os.PathLike[str],
        image_size: int | None = None,
        batch_size: int = 256,
        *,
        preset: str = "v2",
        crops: str = "random",
        shuffle: bool | str = True,
        drop_last: bool = True,
        seed: int = 0,
        threads: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        output: str | None = None,
        dtype: str = "float32",
        pin_memory: bool = False,
        **settings: Any,
    ):
        _one_of("crops", crops, _CROPS)
        _one_of("dtype", dtype, _DTYPES)
        if output is None:
            output = "torch" if _has_torch() else "numpy"
        _one_of("output", output, _OUTPUTS)
        if pin_memory and output != "torch":
            raise ValueError("pin_memory is for torch tensors: expected output=\"torch\"")
        if (rank is None) != (world_size is None):
            raise ValueError("rank and world_size: expected both or neither")
        if rank is None:
            rank, world_size = _distributed()
        if shuffle is not False:
            settings["shuffle"] = "auto" if shuffle is True else shuffle
        if image_size is not None:
            settings["image_size"] = image_size
        settings["seed"] = seed
        self.batch_size = batch_size
        self.rank, self.world_size = rank, world_size
        self._torch = output == "torch"
        self._pin_memory = pin_memory
        self._epoch = 0
        self._unreadable: dict[int, str] = {}
        self._arguments = (os.fspath(data), preset, _json(settings))
        self._keywords: dict[str, Any] = {
            "batch_size": batch_size,
            "drop_last": drop_last,
            "shuffle": shuffle is not False,
            "centre": crops == "centre",
            "rank": rank,
            "world_size": world_size,
            "threads": threads,
            "uint8": dtype == "uint8",
        }
        self._pipeline = _core.Pipeline(*self._arguments, **self._keywords)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_pipeline"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pipeline = _core.Pipeline(*self._arguments, **self._keywords)

    def __len__(self) -> int:
        """Batches of an epoch, the same in every process."""
        return len(self._pipeline)

    def __iter__(self) -> Iterator[tuple[list[Any], Any]]:
        batches = self._pipeline.batches(self._epoch)
        self._epoch += 1
        return self._batches(batches)

    def _batches(self, batches: _core.Batches) -> Iterator[tuple[list[Any], Any]]:
        convert = self._tensor if self._torch else _array
        try:
            for views, indices, unreadable in batches:
                for index, name, reason in unreadable:
                    if index not in self._unreadable:
                        self._unreadable[index] = reason
                        text = f"left out {name}: {reason}"
                        warnings.warn(text, UnreadableImageWarning, stacklevel=2)
                if indices.shape[0] == 0:
                    continue
                converted = [convert(view) for view in views]
                # Their memory is needed again: nothing here may keep it while the loop's body runs.
                del views
                batch = converted, convert(indices)
                del converted, indices, unreadable
                yield batch
                del batch
        finally:
            batches.close()

    def _tensor(self, array: _core.Array) -> Any:
        import torch

        tensor = torch.from_dlpack(array)
        if tensor.ndim == 4:
            tensor = tensor.permute(0, 3, 1, 2)
        return tensor.pin_memory() if self._pin_memory else tensor

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next iteration is, counted from 0.

        Needed where a run goes on, or iterations are not one per epoch.
        """
        if epoch < 0:
            raise ValueError(f"epoch {epoch}: expected 0 or more")
        self._epoch = epoch

    @property
    def epoch(self) -> int:
        """The epoch of the next iteration."""
        return self._epoch

    @property
    def dataset(self) -> Dataset:
        """The images: names, labels and bytes by index."""
        return Dataset._of(self._pipeline.dataset)

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting of views, resolved, under its keyword's name."""
        return _keywords(self._pipeline.views)

    @property
    def unreadable(self) -> dict[int, str]:
        """Why images could not be read, by index, as far as that was noticed."""
        return dict(self._unreadable)

    def __repr__(self) -> str:
        data, preset, _ = self._arguments
        return (
            f"Loader({data!r}, preset={preset!r}): {len(self.dataset)} images, "
            f"{len(self)} batches of {self.batch_size}"
        )


def views(
    image: Any,
    image_size: int | None = None,
    *,
    preset: str = "v2",
    crops: str = "random",
    seed: int = 0,
    epoch: int = 0,
    index: int = 0,
    dtype: str = "float32",
    **settings: Any,
) -> list[NDArray[np.float32] | NDArray[np.uint8]]:
    """The views of one image, as `Loader` makes them of the image ``index`` in ``epoch``.

    Parameters
    ----------
    image : path, bytes, ndarray or PIL.Image.Image
        A file, its bytes, or pixels: uint8 [height, width, 3].
    image_size, preset, crops, seed, dtype, **settings
        As of `Loader`.
    epoch, index : int
        What, with the seed, the random choices follow from.

    Returns
    -------
    list of ndarray
        ``[query, key, local view, ...]``, or ``[crop]``; each [side, side, 3].

    Raises
    ------
    ValueError
        When the image cannot be decoded, or a setting does not exist or is out of range.
    OSError
        When the file cannot be read.

    Examples
    --------
    >>> query, key = protonce.views("cat.jpg", 224, jitter=[0.8, 0.8, 0.8, 0.2], dtype="uint8")
    """
    import numpy as np

    _one_of("crops", crops, _CROPS)
    _one_of("dtype", dtype, _DTYPES)
    if image_size is not None:
        settings["image_size"] = image_size
    settings["seed"] = seed
    encoded = pixels = None
    if isinstance(image, (bytes, bytearray, memoryview)):
        encoded = bytes(image)
    elif isinstance(image, (str, os.PathLike)):
        with open(image, "rb") as file:
            encoded = file.read()
    else:
        if hasattr(image, "convert"):
            image = image.convert("RGB")
        pixels = np.ascontiguousarray(image)
        if pixels.dtype != np.uint8:
            raise ValueError(f"an image of {pixels.dtype}: expected uint8 [height, width, 3]")
    made = _core.views(
        encoded,
        pixels,
        preset,
        _json(settings),
        centre=crops == "centre",
        epoch=epoch,
        index=index,
        uint8=dtype == "uint8",
    )
    return [_array(view) for view in made]


def _array(array: _core.Array) -> Any:
    import numpy as np

    return np.asarray(array)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}: expected one of {', '.join(allowed)}")


def _json(settings: dict[str, Any]) -> str:
    """Settings as the extension reads them: under the names that they have everywhere else."""

    def plain(value: Any) -> Any:
        if hasattr(value, "tolist"):
            return value.tolist()
        raise TypeError(f"a setting has a value that it cannot have: {value!r}")

    given = {name.replace("_", "-"): value for name, value in settings.items()}
    return json.dumps(given, default=plain)


def _keywords(text: str) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in json.loads(text).items()}


def _has_torch() -> bool:
    if "torch" in sys.modules:
        return True
    import importlib.util

    return importlib.util.find_spec("torch") is not None


def _distributed() -> tuple[int, int]:
    # Whoever has initialised it has imported it.
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
