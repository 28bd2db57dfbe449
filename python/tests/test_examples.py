"""Examples that need no torch: the notebook from images to prototypes, clustering and scikit-learn."""

import importlib.util
from pathlib import Path

import numpy as np
import protonce
import pytest
from conftest import NARROW, REPOSITORY

EXAMPLES = REPOSITORY / "examples"
PACKAGE = str(Path(protonce.__file__).resolve().parents[1])


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def images_in(cell):
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


# IPython and its kernel warn of their own ways of doing things.
@pytest.mark.filterwarnings("default")
def test_the_notebook_shows_prototypes_and_report(real_program, pictures, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    notebook = nbformat.read(EXAMPLES / "prototypes.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    monkeypatch.setenv("PROTONCE", str(real_program))
    monkeypatch.setenv("PYTHONPATH", PACKAGE)
    # Nothing that a person has set up there.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    names, settings = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    names.source = f"images = {str(pictures)!r}"
    settings.source = f"folder = 'run'\nsettings = {NARROW!r}"
    # Run twice: it goes on.
    [training] = [cell for cell in notebook.cells if "run = protonce.pretrain(" in cell.source]
    again = nbformat.v4.new_code_cell(training.source)
    notebook.cells.insert(notebook.cells.index(training) + 1, again)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for trained in (code[2], code[3]):
        said = [output for output in trained.outputs if output.output_type == "stream"]
        assert "12/12" in "".join(output.text for output in said)
    assert len(protonce.Run(tmp_path / "run").frame("epoch")) == 2
    code.remove(again)
    assert images_in(code[3]) == 1 and "<table" in str(code[3].outputs)
    # A row for each of the coarsest prototypes that has images.
    granularities = protonce.Run(tmp_path / "run").prototypes
    coarsest = granularities[max(granularities)][0]
    assert images_in(code[4]) == len(np.unique(coarsest.assignment))
    assert "hungarian" in str(code[5].outputs)
    [page] = code[6].outputs
    html = page.data["text/html"]
    assert html.startswith("<iframe srcdoc=") and html.endswith("</iframe>") and len(html) > 50_000


# Clustering.


def mixture(clusters, dim, items, seed):
    """Directions around `clusters` axes, of lengths that say nothing, and which axis each is of."""
    random = np.random.default_rng(seed)
    axes = np.linalg.qr(random.normal(size=(dim, dim)))[0][:clusters]
    labels = np.arange(items) % clusters
    rows = axes[labels] + random.normal(size=(items, dim)) * 0.5 / dim
    return (rows * random.uniform(0.1, 10, (items, 1))).astype(np.float32), labels


@pytest.mark.parametrize(("clusters", "dim"), [(3, 8), (5, 16), (8, 12)])
def test_the_number_of_clusters_is_found(clusters, dim):
    module = example("cluster_embeddings")
    rows, labels = mixture(clusters, dim, 400, clusters)
    best, fits, silhouettes = module.choose(rows, [2, 3, 5, 8, 13])
    assert best.n_clusters == clusters and len(fits) == len(silhouettes) == 5
    assert protonce.cluster_metrics(labels, best.labels_)["ari"] == pytest.approx(1)
    for cluster in range(clusters):
        items = module.typical(best, rows, cluster, 3)
        assert (best.labels_[items] == cluster).all()
        # The closest in direction, whatever its length.
        normalised = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        similarity = normalised @ best.cluster_centers_[cluster]
        similarity[best.labels_ != cluster] = -2
        assert items[0] == similarity.argmax()


def test_silhouettes_say_nothing_of_one_cluster_or_of_single_items():
    rows = np.eye(4, dtype=np.float32)
    _, _, silhouettes = example("cluster_embeddings").choose(rows, [1, 4])
    assert silhouettes == [-1, -1]


def test_embeddings_in_a_file_are_grouped(tmp_path, capsys):
    rows, labels = mixture(3, 8, 90, 0)
    files = {name: tmp_path / name for name in ("e.npy", "labels.txt", "groups.csv")}
    np.save(files["e.npy"], rows)
    files["labels.txt"].write_text("".join(f"class {label}\n" for label in labels))
    example("cluster_embeddings").main(
        files["e.npy"], [2, 3, 4], files["labels.txt"], files["groups.csv"], seed=0
    )
    said = capsys.readouterr().out
    [chosen] = [line for line in said.splitlines() if "chosen" in line]
    assert chosen.split()[0] == "3" and "ari: 1.000" in said
    table = np.loadtxt(files["groups.csv"], int, delimiter=",", skiprows=1)
    assert table[:, 0].tolist() == list(range(90))
    assert protonce.cluster_metrics(labels, table[:, 1])["ari"] == pytest.approx(1)


# scikit-learn.


@pytest.mark.parametrize("clusters", [2, 4, 6])
def test_a_search_over_a_pipeline_finds_what_agrees_with_the_labels(clusters):
    module = example("sklearn_pipeline")
    rows, labels = mixture(clusters, 16, 120, clusters)
    grid = dict(components=[1, 8], clusters=[2, 4, 6])
    found = module.search(
        module.clusterer(), rows, labels, scoring="adjusted_mutual_info_score", **grid
    )
    assert found.best_params_["kmeans__n_clusters"] == clusters
    assert found.best_score_ == pytest.approx(1)
    classified = module.search(
        module.classifier(), rows, labels, scoring="balanced_accuracy", **grid
    )
    assert classified.best_score_ > 0.95


def test_features_of_a_run_are_searched(trained, pictures, capsys):
    example("sklearn_pipeline").main(trained, pictures, [2, 4], [2, 3])
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["adjusted_mutual_info_score", "balanced_accuracy"]
    assert all("'kmeans__n_clusters'" in line for line in said)
