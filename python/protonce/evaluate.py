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


def knn(weights: Any, train: Data = None, test: Data = None, **settings: Any) -> list[dict[str, Any]]:
    """Classifies test images by their nearest training images: an entry per number of neighbours."""
    return _evaluate("knn", weights, train, test, settings)


def linear(weights: Any, train: Data = None, test: Data = None, **settings: Any) -> dict[str, Any]:
    """Logistic regression on frozen features; ``protocol="sgd"`` is the published protocol."""
    return _evaluate("linear", weights, train, test, settings)


def svm(weights: Any, train: Data = None, test: Data = None, **settings: Any) -> dict[str, Any]:
    """Linear SVMs on frozen features, on all images and on a few of each class."""
    return _evaluate("svm", weights, train, test, settings)


def semi(weights: Any, train: Data = None, test: Data = None, **settings: Any) -> list[dict[str, Any]]:
    """Fine-tunes the whole network: an entry per share of the labels."""
    return _evaluate("semi", weights, train, test, settings)


def cluster(weights: Any, train: Data = None, test: Data = None, **settings: Any) -> dict[str, Any]:
    """Clusters the test images and compares the clusters with the labels."""
    return _evaluate("cluster", weights, train, test, settings)


def all(weights: Any, train: Data = None, test: Data = None, **settings: Any) -> pd.DataFrame:
    """Every evaluation; ``skip="semi"`` leaves out the one that takes longest.

    Returns
    -------
    pandas.DataFrame
        A row per figure, under its name in the paper. The first column is this encoder's, ``deviation``
        is over repetitions, and the others are what has been published of the same benchmark.

    Raises
    ------
    ImportError
        Without pandas.
    """
    import pandas as pd

    given = _given(weights, train, test, settings)
    text = program.run(["eval", "all", "--markdown", *program.flags(given)], json=False)
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    (_, ours, *published), _, *rows = [[cell.strip() for cell in line] for line in lines]
    table: dict[str, list[float]] = {name: [] for name in (ours, "deviation", *published)}
    for _, figure, *others in rows:
        value, _, deviation = figure.partition("±")
        for name, cell in zip(table, [value, deviation, *others], strict=True):
            table[name].append(float(cell) if cell.strip() else float("nan"))
    return pd.DataFrame(table, index=pd.Index([row[0] for row in rows], name="evaluation"))


def _evaluate(name: str, weights: Any, train: Data, test: Data, settings: dict[str, Any]) -> Any:
    given = _given(weights, train, test, settings)
    return program.run(["eval", name, *program.flags(given)])[name]


def _given(weights: Any, train: Data, test: Data, settings: dict[str, Any]) -> dict[str, Any]:
    weights = getattr(weights, "folder", weights)
    return {"weights": weights, "train": train, "test": test, **settings}
