"""The compiled half: see crates/protonce-python. Use what the package's own modules make of it."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

class Array:
    """Memory that NumPy and every library that knows DLPack use without a copy."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def __array_interface__(self) -> dict[str, Any]: ...
    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

class Dataset:
    def __init__(self, argument: str) -> None: ...
    def __len__(self) -> int: ...
    @property
    def argument(self) -> str: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def labels(self) -> Array: ...
    @property
    def names(self) -> list[str]: ...
    def name(self, index: int) -> str: ...
    def read(self, index: int) -> bytes: ...

def cache_objects(folder: str | os.PathLike[str] | None, limit: int | None) -> None: ...

class Pipeline:
    def __init__(
        self,
        data: str,
        preset: str,
        settings: str,
        *,
        batch_size: int,
        drop_last: bool,
        shuffle: bool,
        centre: bool,
        rank: int,
        world_size: int,
        threads: int,
        uint8: bool,
    ) -> None: ...
    def __len__(self) -> int: ...
    @property
    def dataset(self) -> Dataset: ...
    @property
    def views(self) -> str: ...
    def batches(self, epoch: int, first: int = 0) -> Batches: ...

class Batches:
    def __iter__(self) -> Batches: ...
    def __next__(self) -> tuple[list[Array], Array, list[tuple[int, str, str]]]: ...
    def close(self) -> None: ...

def view_settings(preset: str, changes: str) -> str: ...
def run_settings(run: str) -> str: ...
def views(
    encoded: bytes | None,
    rgb: NDArray[np.uint8] | None,
    preset: str,
    settings: str,
    *,
    centre: bool,
    epoch: int,
    index: int,
    uint8: bool,
) -> list[Array]: ...
def kmeans_fit(
    points: NDArray[np.float32],
    clusters: int,
    *,
    iterations: int,
    starts: int,
    max_points_per_centroid: int | None,
    init: str,
    centroids: NDArray[np.float32] | None,
    spherical: bool,
    seed: int,
    threads: int,
    progress: Callable[[int, int], object] | None,
) -> tuple[Array, Array, float, int]: ...
def kmeans_predict(
    points: NDArray[np.float32], centroids: NDArray[np.float32], *, spherical: bool, threads: int
) -> tuple[Array, float]: ...
def kmeans_distances(
    points: NDArray[np.float32], centroids: NDArray[np.float32], *, spherical: bool, threads: int
) -> Array: ...
def agreement(labels: NDArray[np.int64], clusters: NDArray[np.int64]) -> dict[str, float]: ...
