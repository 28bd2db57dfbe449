"""k-means as users of scikit-learn expect it."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import protonce
import pytest
from conftest import LISTENING


def groups(seed, count, dim, centres, spread):
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(centres, dim))
    points = middle[rng.integers(centres, size=count)] + spread * rng.normal(size=(count, dim))
    return points.astype(np.float32)


CASES = [
    ("clustered", groups(0, 3000, 32, 40, 0.3), 50),
    ("few dimensions", groups(1, 2000, 2, 10, 0.2), 30),
    ("isotropic", groups(2, 1500, 17, 1, 1.0), 20),
    ("one cluster", groups(3, 200, 5, 3, 0.3), 1),
    # Raw pixels, for example.
    ("very many dimensions", groups(4, 60, 12000, 5, 0.3), 5),
]


def squared(points, centers):
    return ((points[:, None].astype(np.float64) - centers[None]) ** 2).sum(-1)


@pytest.mark.parametrize(("name", "points", "clusters"), CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("init", ["k-means++", "k-means||", "random"])
def test_labels_are_those_of_brute_force(name, points, clusters, init):
    kmeans = protonce.KMeans(clusters, init=init, random_state=0).fit(points)
    distances = squared(points, kmeans.cluster_centers_)
    labels = kmeans.labels_
    assert labels.dtype == np.int64 and kmeans.cluster_centers_.dtype == np.float32
    chosen = distances[np.arange(len(points)), labels]
    # Where two are as near as float32 can tell, either will do.
    assert (chosen <= distances.min(1) * (1 + 1e-5) + 1e-9).all()
    assert (labels == distances.argmin(1)).mean() > 0.999
    np.testing.assert_allclose(kmeans.inertia_, chosen.sum(), rtol=1e-5)
    # At rest, every centroid is the mean of its points.
    assert kmeans.n_iter_ < 300
    for cluster in np.unique(labels):
        mean = points[labels == cluster].astype(np.float64).mean(0)
        np.testing.assert_allclose(kmeans.cluster_centers_[cluster], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(kmeans.predict(points), labels)
    np.testing.assert_allclose(kmeans.transform(points) ** 2, distances, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(kmeans.transform(points).argmin(1), labels)
    assert kmeans.score(points) == pytest.approx(-kmeans.inertia_)
    others = points[::3] + np.float32(0.01)
    found = squared(others, kmeans.cluster_centers_)
    predicted = found[np.arange(len(others)), kmeans.predict(others)]
    assert (predicted <= found.min(1) * (1 + 1e-5) + 1e-9).all()


@pytest.mark.parametrize(("name", "points", "clusters"), CASES, ids=[case[0] for case in CASES])
def test_from_the_same_centroids_it_ends_where_scikit_learn_does(name, points, clusters):
    cluster = pytest.importorskip("sklearn.cluster")
    points = points[:800]
    # Far enough apart that no cluster loses all of its points: what to do then is not k-means.
    init = protonce.KMeans(clusters, max_iter=1, random_state=0).fit(points).cluster_centers_
    theirs = cluster.KMeans(clusters, init=init, n_init=1, max_iter=300, tol=0, algorithm="lloyd")
    theirs.fit(points)
    ours = protonce.KMeans(clusters, init=init).fit(points)
    # Rounding may send a point another way; then the sums are nearly the same still.
    np.testing.assert_allclose(ours.inertia_, theirs.inertia_, rtol=5e-3)
    assert (ours.labels_ == theirs.labels_).mean() > 0.9


def test_a_warm_start_goes_on_from_its_centroids():
    for _, points, clusters in CASES:
        first = protonce.KMeans(clusters, random_state=1, max_iter=2).fit(points)
        rest = protonce.KMeans(clusters, init=first.cluster_centers_).fit(points)
        whole = protonce.KMeans(clusters, random_state=1).fit(points)
        np.testing.assert_array_equal(rest.cluster_centers_, whole.cluster_centers_)
        again = protonce.KMeans(clusters, init=whole.cluster_centers_).fit(points)
        np.testing.assert_array_equal(again.labels_, whole.labels_)
        assert again.n_iter_ == 1


def test_the_state_of_the_generator_decides_and_nothing_else():
    points = CASES[0][1]
    fit = lambda state, **keywords: protonce.KMeans(
        20, random_state=state, **keywords
    ).fit(points).cluster_centers_
    np.testing.assert_array_equal(fit(3), fit(3))
    np.testing.assert_array_equal(fit(3), fit(np.int64(3)))
    np.testing.assert_array_equal(fit(3, n_jobs=1), fit(3, n_jobs=2))
    assert (fit(3) != fit(4)).any()
    for make in (np.random.RandomState, np.random.default_rng):
        np.testing.assert_array_equal(fit(make(5)), fit(make(5)))
    np.random.seed(6)
    first = fit(None)
    assert (first != fit(None)).any()
    np.random.seed(6)
    np.testing.assert_array_equal(first, fit(None))


def test_any_layout_and_type_of_the_same_numbers_gives_the_same(tmp_path):
    points = np.round(CASES[0][1] * 8) / 8
    expected = protonce.KMeans(30, random_state=0).fit(points)
    wide = np.zeros((len(points), 64), np.float32)
    wide[:, ::2] = points
    np.save(tmp_path / "points.npy", points)
    read_only = points.copy()
    read_only.flags.writeable = False
    for same in [
        points.astype(np.float16),
        points.astype(np.float64),
        np.asfortranarray(points),
        wide[:, ::2],
        points[::-1][::-1],
        read_only,
        np.load(tmp_path / "points.npy", mmap_mode="r"),
        points.astype(">f4"),
        points.tolist(),
    ]:
        found = protonce.KMeans(30, random_state=0).fit(same)
        np.testing.assert_array_equal(found.labels_, expected.labels_)
        np.testing.assert_array_equal(found.cluster_centers_, expected.cluster_centers_)
        np.testing.assert_array_equal(found.predict(same), expected.labels_)


def test_whole_numbers_are_points_too():
    points = np.arange(24).reshape(12, 2)
    found, same = (
        protonce.KMeans(3, random_state=0).fit(one) for one in (points, points.astype(np.float32))
    )
    np.testing.assert_array_equal(found.labels_, same.labels_)


def test_spherical_compares_directions():
    for _, points, clusters in CASES[:3]:
        kmeans = protonce.KMeans(clusters, metric="spherical", random_state=0).fit(points)
        np.testing.assert_allclose(np.linalg.norm(kmeans.cluster_centers_, axis=1), 1, rtol=1e-6)
        unit = points / np.linalg.norm(points, axis=1, keepdims=True)
        cosine = unit.astype(np.float64) @ kmeans.cluster_centers_.T
        chosen = cosine[np.arange(len(points)), kmeans.labels_]
        assert (chosen >= cosine.max(1) - 1e-6).all()
        np.testing.assert_allclose(kmeans.inertia_, (2 - 2 * chosen).sum(), rtol=1e-3)
        scaled = protonce.KMeans(clusters, metric="spherical", random_state=0).fit(points * 4)
        np.testing.assert_array_equal(scaled.labels_, kmeans.labels_)
    with pytest.raises(ValueError, match="point 1 is zero and has no direction"):
        protonce.KMeans(1, metric="spherical").fit([[1.0, 0.0], [0.0, 0.0]])


def test_a_sample_finds_the_centroids_and_all_points_are_assigned():
    points = CASES[0][1]
    kmeans = protonce.KMeans(10, max_points_per_centroid=20, random_state=0).fit(points)
    assert len(kmeans.labels_) == len(points)
    np.testing.assert_array_equal(kmeans.predict(points), kmeans.labels_)


def test_progress_is_told_and_what_it_raises_ends_the_fit():
    points, told = CASES[0][1], []
    kmeans = protonce.KMeans(50, random_state=0, n_init=2, max_iter=10, init="random")
    kmeans.set_params(progress=lambda done, total: told.append((done, total))).fit(points)
    assert told and {total for _, total in told} == {20}
    assert [done for done, _ in told] == sorted(done for done, _ in told)

    def impatient(done, total):
        raise TimeoutError("enough")

    with pytest.raises(TimeoutError, match="enough"):
        kmeans.set_params(progress=impatient).fit(points)
    kmeans.set_params(progress=None).fit(points)


@pytest.mark.parametrize(
    ("keywords", "X", "sentence"),
    [
        ({"n_clusters": 0}, None, "n_clusters is 0: expected a whole number, 1 or more"),
        ({"n_clusters": 2.5}, None, "n_clusters is 2.5"),
        ({"n_init": 0}, None, "n_init is 0"),
        ({"max_iter": 0}, None, "max_iter is 0"),
        ({"max_points_per_centroid": 0}, None, "max_points_per_centroid is 0"),
        ({"n_jobs": 0}, None, "n_jobs is 0"),
        ({"metric": "cosine"}, None, "metric is 'cosine'"),
        ({"init": "best"}, None, 'init is "best": expected "k-means'),
        ({"init": np.zeros((3, 3))}, None, r"init is of shape \(3, 3\): expected \(2, 2\)"),
        ({"init": np.full((2, 2), np.nan)}, None, "centroid 0 to begin with is not finite"),
        ({"random_state": -1}, None, "random_state is -1"),
        ({"n_clusters": 9}, None, "cannot form 9 clusters from n_samples = 4"),
        ({}, [[1.0, 2.0], [np.nan, 0.0]], "point 1 is not finite: it has NaN"),
        ({}, [[np.inf, 2.0], [1.0, 0.0]], "point 0 is not finite"),
        ({}, [[1e200, 2.0], [1.0, 0.0]], "point 0 is not finite"),
        ({}, [1.0, 2.0], "Reshape your data"),
        ({}, np.zeros((2, 2, 2)), "Found array with dim 3"),
        ({}, np.zeros((0, 2)), "0 sample"),
        ({}, np.zeros((2, 0)), "0 feature"),
        ({}, np.zeros((2, 2), complex), "Complex data not supported"),
    ],
)
def test_bad_arguments_get_one_sentence(keywords, X, sentence):
    X = [[0.0, 0.0], [0.0, 1.0], [5.0, 5.0], [5.0, 6.0]] if X is None else X
    with pytest.raises(ValueError, match=sentence):
        protonce.KMeans(**{"n_clusters": 2, **keywords}).fit(X)


def test_what_is_not_fitted_or_of_another_width_is_refused():
    with pytest.raises(ValueError, match="not fitted yet"):
        protonce.KMeans().predict([[1.0]])
    with pytest.raises(AttributeError, match="not fitted yet"):
        protonce.KMeans().transform([[1.0]])
    kmeans = protonce.KMeans(2, random_state=0).fit(CASES[1][1])
    with pytest.raises(ValueError, match="X has 3 features, but KMeans is expecting 2 features"):
        kmeans.predict(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="Invalid parameter 'k'"):
        kmeans.set_params(k=3)
    assert repr(protonce.KMeans(3, metric="spherical")) == "KMeans(n_clusters=3, metric='spherical')"


# Without scikit-learn there is nothing to inherit.
@pytest.mark.filterwarnings("ignore:Estimator KMeans does not inherit from:UserWarning")
def test_it_is_an_estimator_of_scikit_learn():
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    results = checks.check_estimator(protonce.KMeans(), on_skip=None, on_fail="raise")
    passed = [one for one in results if one["status"] == "passed"]
    assert len(passed) >= 45, results


def test_it_works_in_a_pipeline_and_a_search():
    pytest.importorskip("sklearn")
    from sklearn.base import clone
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    points = CASES[0][1]
    pipeline = make_pipeline(StandardScaler(), protonce.KMeans(5, random_state=0))
    assert pipeline.fit_transform(points).shape == (len(points), 5)
    assert pipeline.predict(points).shape == (len(points),)
    search = GridSearchCV(pipeline, {"kmeans__n_clusters": [2, 40]}, cv=2).fit(points)
    assert search.best_params_ == {"kmeans__n_clusters": 40}
    assert clone(pipeline[-1]).get_params() == pipeline[-1].get_params()


def test_measures_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for labels, clusters in [
        (rng.integers(4, size=300), rng.integers(7, size=300)),
        (rng.integers(3, size=50), rng.integers(3, size=50)),
        (np.repeat([5, -1, 9], 20), np.repeat([2, 2, 1], 20)),
    ]:
        found = protonce.cluster_metrics(labels, clusters)
        assert found["ami"] == pytest.approx(metrics.adjusted_mutual_info_score(labels, clusters))
        assert found["nmi"] == pytest.approx(metrics.normalized_mutual_info_score(labels, clusters))
        assert found["ari"] == pytest.approx(metrics.adjusted_rand_score(labels, clusters))
    for measure in protonce.cluster_metrics(["a", "b", "a"], ["x", "y", "x"]).values():
        assert measure == pytest.approx(1)
    for bad in [([1], [1, 2]), ([], []), ([[1]], [1])]:
        with pytest.raises(ValueError, match="expected"):
            protonce.cluster_metrics(*bad)


def test_several_threads_fit_at_once():
    points, results = CASES[0][1][:800], {}
    expected = [protonce.KMeans(10, random_state=seed).fit_predict(points) for seed in range(4)]

    def fit(seed):
        results[seed] = protonce.KMeans(10, random_state=seed).fit_predict(points)

    threads = [threading.Thread(target=fit, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        np.testing.assert_array_equal(results[seed], expected[seed])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_fit():
    points = CASES[0][1][:800]
    expected = protonce.KMeans(10, random_state=0).fit_predict(points)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(30)
            found = protonce.KMeans(10, random_state=0).fit_predict(points)
            status = int((found != expected).any())
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_memory_stays_flat():
    if sys.platform != "linux":
        pytest.skip("/proc tells the memory of a process")
    points, sizes = CASES[0][1][:800], []
    for number in range(130):
        protonce.KMeans(20, random_state=number).fit(points).transform(points)
        if number in (30, 129):
            with open("/proc/self/statm") as file:
                sizes.append(int(file.read().split()[1]) * 4096)
    assert sizes[1] - sizes[0] < 8_000_000, sizes


@pytest.mark.parametrize("init", ["random", "k-means++", "k-means||"])
def test_ctrl_c_ends_a_fit_within_a_second(init):
    script = LISTENING + (
        "import numpy as np, protonce\n"
        "points = np.random.default_rng(0).normal(size=(60000, 64)).astype(np.float32)\n"
        "print('fitting', flush=True)\n"
        f"protonce.KMeans(20000, init={init!r}, n_init=50, n_jobs=2).fit(points)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "fitting\n"
    time.sleep(1)
    assert child.poll() is None
    begin = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    # It is a fraction of a second; the rest is for machines that have other things to do.
    assert "KeyboardInterrupt" in said and time.monotonic() - begin < 5
