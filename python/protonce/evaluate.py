"""What an encoder is worth: the evaluations of the paper, one function each.

Each takes the weights (a `Run`, its folder, a checkpoint, a safetensors file or a ``.pth``), labelled
images to learn from and to be tested on, or ``data=`` for a benchmark as it was unpacked, and any flag
of the same command of ``protonce eval`` as a keyword. Figures are in percent unless their names say
otherwise.

Raises `protonce.ProgramError` with the program's sentence when it fails.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from . import program

if TYPE_CHECKING:
    import pandas as pd

    Data = str | os.PathLike[str] | None

__all__ = ["all", "cluster", "knn", "linear", "semi", "svm"]


def knn(weights: Any, train: Data = None, test: Data = None, **settings: Any) -> dict[str, Any]:
    """Classifies test images by their nearest training images; nothing is trained."""
    return _evaluate("knn", weights, train, test, settings)


def linear(weights: Any, train: Data = None, test: Data = None, **settings: Any) -> dict[str, Any]:
    """Logistic regression on frozen features; ``protocol="sgd"`` is the published protocol."""
    return _evaluate("linear", weights, train, test, settings)


def svm(weights: Any, train: Data = None, test: Data = None, **settings: Any) -> dict[str, Any]:
    """Linear SVMs on frozen features, on all images and on a few of each class."""
    return _evaluate("svm", weights, train, test, settings)


def semi(weights: Any, train: Data = None, test: Data = None, **settings: Any) -> dict[str, Any]:
    """Fine-tunes the whole network on a share of the labels."""
    return _evaluate("semi", weights, train, test, settings)


def cluster(weights: Any, train: Data = None, test: Data = None, **settings: Any) -> dict[str, Any]:
    """Clusters the test images and compares the clusters with the labels."""
    return _evaluate("cluster", weights, train, test, settings)


def all(weights: Any, train: Data = None, test: Data = None, **settings: Any) -> pd.DataFrame:
    """Every evaluation; ``skip="semi"`` leaves out the one that takes longest.

    Returns
    -------
    pandas.DataFrame
        A row per figure: ``evaluation``, ``measure``, ``value``.

    Raises
    ------
    ImportError
        Without pandas.
    """
    import pandas as pd

    found = _evaluate("all", weights, train, test, settings)
    rows = [
        (evaluation, measure, value)
        for evaluation, measures in found.items()
        for measure, value in _figures(measures, "")
    ]
    return pd.DataFrame(rows, columns=["evaluation", "measure", "value"])


def _evaluate(
    name: str, weights: Any, train: Data, test: Data, settings: dict[str, Any]
) -> dict[str, Any]:
    given = {"weights": getattr(weights, "folder", weights), "train": train, "test": test, **settings}
    printed = program.run(["eval", name, *program.flags(given)])
    return printed[name]


def _figures(value: Any, name: str) -> list[tuple[str, float]]:
    """The numbers in nested JSON, each under the names that lead to it."""
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, (int, float)):
        return [(name, float(value))]
    inner = value.items() if isinstance(value, dict) else []
    return [
        figure
        for key, one in inner
        for figure in _figures(one, f"{name}.{key}" if name else str(key))
    ]
