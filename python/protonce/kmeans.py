"""Exact k-means under scikit-learn's names, and measures of clusterings."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class KMeans:
    """Exact k-means: the result of plain float32 Lloyd's iterations, several times faster.

    Follows scikit-learn's protocol (pipelines, ``clone``, ``GridSearchCV``) without needing it.
    Distances to most centroids are ruled out by proven bounds and never computed; the result is the
    same to the bit as if they were, for any number of threads.

    Parameters
    ----------
    n_clusters : int
        Clusters.
    init : {"k-means++", "k-means||", "random"} or array-like of shape (n_clusters, n_features)
        Where it begins. ``"k-means++"`` takes a pass over the data per cluster; for thousands of
        clusters ``"k-means||"`` is nearly as good and much faster, and ``"random"`` is what faiss
        does. Centroids are a warm start: there is one run then, whatever `n_init` says.
    n_init : int or "auto"
        Runs, of which the best is kept; ``"auto"`` is 1.
    max_iter : int
        Rounds of assignment and update, at most. It ends earlier when no point changes its cluster.
    metric : {"euclidean", "spherical"}
        ``"spherical"`` compares directions: points and centroids have length 1.
    max_points_per_centroid : int, optional
        Use a random sample of so many points per cluster to find the centroids, and only assign the
        rest. Default: use all.
    random_state : int, RandomState, Generator or None
        What random choices follow from; None: from NumPy's global state.
    n_jobs : int, optional
        Threads; None or -1: one per core. The result does not depend on it.
    progress : callable, optional
        Called with the rounds done and the most there can be. What it raises ends the fit.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features)
        Centroids, float32.
    labels_ : ndarray of shape (n_samples,)
        The nearest centroid of each point, of equally near ones the first; int64.
    inertia_ : float
        Sum of squared distances to the nearest centroids.
    n_iter_ : int
        Rounds of the best run.
    n_features_in_ : int
        Features seen during `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where `fit` was given a table with names that are text.

    Notes
    -----
    Numbers are float32. C-contiguous float32 is used where it is, also in a memory-mapped file;
    anything else is copied. Ctrl-C ends a fit within a fraction of a second, and leaves the
    estimator as it was.

    Examples
    --------
    >>> kmeans = protonce.KMeans(500, random_state=0).fit(embeddings)
    >>> kmeans.predict(others)
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: str | ArrayLike = "k-means++",
        n_init: int | str = 1,
        max_iter: int = 300,
        metric: str = "euclidean",
        max_points_per_centroid: int | None = None,
        random_state: Any = None,
        n_jobs: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ):
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.metric = metric
        self.max_points_per_centroid = max_points_per_centroid
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.progress = progress

    def fit(self, X: ArrayLike, y: Any = None) -> KMeans:
        """Finds the centroids.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points: finite, within ±1e15.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            When a parameter or a point is not what it should be.
        KeyboardInterrupt
            After Ctrl-C.
        """
        X = self._points(X, fitting=True)
        n_init: Any = 1 if self.n_init == "auto" else self.n_init
        most = self.max_points_per_centroid
        counts = {"n_clusters": self.n_clusters, "n_init": n_init, "max_iter": self.max_iter}
        if most is not None:
            counts["max_points_per_centroid"] = most
        for name, value in counts.items():
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole or value < 1:
                raise ValueError(f"{name} is {value!r}: expected a whole number, 1 or more")
        centroids, init = None, self.init
        if not isinstance(init, str):
            centroids, init = _floats(init), "random"
            expected = (self.n_clusters, X.shape[1])
            if centroids.shape != expected:
                raise ValueError(f"init is of shape {centroids.shape}: expected {expected}")
        if len(X) < self.n_clusters:
            raise ValueError(
                f"cannot form {self.n_clusters} clusters from n_samples = {len(X)}: expected "
                "n_samples >= n_clusters"
            )
        centers, labels, inertia, rounds = _core.kmeans_fit(
            X,
            int(self.n_clusters),
            iterations=int(self.max_iter),
            starts=int(n_init),
            max_points_per_centroid=None if most is None else int(most),
            init=init,
            centroids=centroids,
            spherical=self._spherical(),
            seed=_seed(self.random_state),
            threads=self._threads(),
            progress=self.progress,
        )
        self.cluster_centers_ = np.asarray(centers)
        self.labels_ = np.asarray(labels)
        self.inertia_ = inertia
        self.n_iter_ = max(rounds, 1)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """The nearest centroid of each point.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
            int64.
        """
        return np.asarray(self._predict(X)[0])

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """The distance of each point to each centroid; with ``metric="spherical"`` that of unit vectors.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_clusters)
            float32.
        """
        X, centers = self._points(X), self.cluster_centers_
        distances = _core.kmeans_distances(
            X, centers, spherical=self._spherical(), threads=self._threads()
        )
        return np.asarray(distances)

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Minus the sum of squared distances to the nearest centroids: the higher the better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        float
        """
        return -self._predict(X)[1]

    def fit_predict(self, X: ArrayLike, y: Any = None) -> NDArray[np.int64]:
        """`fit`, then `labels_`."""
        return self.fit(X).labels_

    def fit_transform(self, X: ArrayLike, y: Any = None) -> NDArray[np.float32]:
        """`fit`, then `transform`."""
        return self.fit(X).transform(X)

    def _predict(self, X: ArrayLike) -> tuple[_core.Array, float]:
        X, centers = self._points(X), self.cluster_centers_
        return _core.kmeans_predict(
            X, centers, spherical=self._spherical(), threads=self._threads()
        )

    def _spherical(self) -> bool:
        if self.metric not in ("euclidean", "spherical"):
            raise ValueError(
                f"metric is {self.metric!r}: expected \"euclidean\" or \"spherical\""
            )
        return self.metric == "spherical"

    def _threads(self) -> int:
        if self.n_jobs is None or self.n_jobs == -1:
            return 0
        if self.n_jobs < 1:
            raise ValueError(f"n_jobs is {self.n_jobs}: expected 1 or more, or None for all cores")
        return int(self.n_jobs)

    def _points(self, X: ArrayLike, fitting: bool = False) -> NDArray[np.float32]:
        """Points as the extension reads them. The sentences are those that scikit-learn looks for."""
        name = type(self).__name__
        if not fitting and not hasattr(self, "cluster_centers_"):
            raise _not_fitted_error()(
                f"This {name} instance is not fitted yet. Call 'fit' with appropriate arguments "
                "before using this estimator."
            )
        names = _feature_names(X)
        points = _floats(X)
        if points.ndim < 2:
            raise ValueError(
                f"Expected 2D array, got {points.ndim}D array instead. Reshape your data: "
                "X.reshape(-1, 1) if it has a single feature, X.reshape(1, -1) if it is a single sample."
            )
        if points.ndim > 2:
            raise ValueError(f"Found array with dim {points.ndim}. {name} expected <= 2.")
        for axis, what in [(0, "sample"), (1, "feature")]:
            if points.shape[axis] == 0:
                raise ValueError(
                    f"Found array with 0 {what}(s) (shape={points.shape}) while a minimum of 1 is "
                    f"required by {name}."
                )
        if fitting:
            self.n_features_in_ = points.shape[1]
            if names is not None:
                self.feature_names_in_ = names
            elif hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
            return points
        self._check_feature_names(names)
        if points.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {points.shape[1]} features, but {name} is expecting "
                f"{self.n_features_in_} features as input."
            )
        return points

    def _check_feature_names(self, names: NDArray[np.object_] | None) -> None:
        known = getattr(self, "feature_names_in_", None)
        name = type(self).__name__
        if known is None and names is None:
            return
        if known is None:
            warnings.warn(
                f"X has feature names, but {name} was fitted without feature names", stacklevel=4
            )
        elif names is None:
            warnings.warn(
                f"X does not have valid feature names, but {name} was fitted with feature names",
                stacklevel=4,
            )
        elif len(known) != len(names) or (known != names).any():
            lines = ["The feature names should match those that were passed during fit."]
            unseen, missing = sorted(set(names) - set(known)), sorted(set(known) - set(names))
            for heading, some in [
                ("Feature names unseen at fit time:", unseen),
                ("Feature names seen at fit time, yet now missing:", missing),
            ]:
                if some:
                    lines += [heading, *(f"- {one}" for one in some)]
            if not unseen and not missing:
                lines.append("Feature names must be in the same order as they were in fit.")
            raise ValueError("\n".join(lines) + "\n")

    # What scikit-learn asks of an estimator.

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name.

        Parameters
        ----------
        deep : ignored
            No parameter is an estimator.

        Returns
        -------
        dict
        """
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in names}

    def set_params(self, **parameters: Any) -> KMeans:
        """Changes parameters.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            When there is none of that name.
        """
        known = self.get_params()
        for name, value in parameters.items():
            if name not in known:
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {self!r}. Valid parameters are: "
                    f"{sorted(known)!r}."
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value is not defaults[name].default
            and not (isinstance(value, (int, str)) and value == defaults[name].default)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type="clusterer",
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(preserves_dtype=["float32"]),
            classifier_tags=None,
            regressor_tags=None,
            input_tags=InputTags(),
        )


def cluster_metrics(labels: ArrayLike, clusters: ArrayLike) -> dict[str, float]:
    """How well clusters agree with labels, or with other clusters. Their names do not matter.

    Parameters
    ----------
    labels, clusters : array-like of shape (n_samples,)
        Two numberings of the same things; text is as good.

    Returns
    -------
    dict
        ``ami``, ``nmi``, ``ari``: adjusted and normalised mutual information and adjusted Rand
        index, as scikit-learn has them; ``purity``: the share of things that are of their cluster's
        most frequent label; ``hungarian_accuracy``: the share that is right when clusters are
        matched to labels one to one in the best way. 1 is perfect for each.

    Raises
    ------
    ValueError
        When there are not as many of both, one or more.
    """
    numbered = []
    for values in (labels, clusters):
        values = np.asarray(values)
        if values.ndim != 1:
            raise ValueError(f"an array of shape {values.shape}: expected one axis")
        numbers = np.unique(values, return_inverse=True)[1]
        numbered.append(np.ascontiguousarray(numbers.reshape(-1), dtype=np.int64))
    return _core.agreement(*numbered)


def _floats(X: Any) -> NDArray[np.float32]:
    """C-contiguous float32, without a copy where it is that already."""
    if hasattr(X, "toarray"):
        raise TypeError(
            "Sparse data was passed, but dense data is required. Use '.toarray()' to convert to a "
            "dense numpy array."
        )
    if hasattr(X, "detach"):
        # A tensor of torch, wherever it is.
        X = X.detach().cpu()
        if str(X.dtype) == "torch.bfloat16":
            X = X.float()
    values = np.asarray(X)
    if values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported\n{values}\n")
    # A float64 beyond float32 becomes infinite, which is then refused with its place.
    with np.errstate(over="ignore"):
        return np.require(values, np.float32, "C").view(np.ndarray)


def _feature_names(X: Any) -> NDArray[np.object_] | None:
    columns = getattr(X, "columns", None)
    if columns is None:
        return None
    names = np.asarray(columns, dtype=object)
    text = [isinstance(name, str) for name in names]
    if any(text) and not all(text):
        kinds = sorted({type(name).__name__ for name in names})
        raise TypeError(
            "Feature names are only supported if all input features have string names, but your "
            f"input has {kinds} as feature name / column name types."
        )
    return names if len(names) and all(text) else None


def _seed(random_state: Any) -> int:
    if random_state is None:
        random_state = np.random
    if hasattr(random_state, "integers"):
        return int(random_state.integers(2**31))
    if hasattr(random_state, "randint"):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, (int, np.integer)) and random_state >= 0:
        return int(random_state)
    raise ValueError(
        f"random_state is {random_state!r}: expected a whole number, 0 or more, a generator or None"
    )


class _NotFittedError(ValueError, AttributeError):
    """What scikit-learn raises under this name, where it is not loaded."""


def _not_fitted_error() -> type[Exception]:
    if "sklearn" in sys.modules:
        from sklearn.exceptions import NotFittedError

        return NotFittedError
    return _NotFittedError
