"""protonce.KMeans in scikit-learn's pipelines and searches; needs scikit-learn.

python examples/sklearn_pipeline.py run photos/

With labels for some images, two questions: which number of principal components and clusters agrees
best with the labels, and what a classifier learns from the distances to prototypes alone.
"""

import argparse

from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer

import protonce


def clusterer():
    return Pipeline([
        ("normalise", Normalizer()),
        ("pca", PCA(random_state=0)),
        ("kmeans", protonce.KMeans(n_init=5, random_state=0)),
    ])


def classifier():
    return Pipeline([*clusterer().steps, ("classify", LogisticRegression(max_iter=1000))])


def search(pipeline, rows, labels, components, clusters, scoring, folds=3):
    """The pipeline that does best on images that it was not fitted to."""
    grid = {"pca__n_components": components, "kmeans__n_clusters": clusters}
    parts = StratifiedKFold(folds, shuffle=True, random_state=0)
    return GridSearchCV(pipeline, grid, scoring=scoring, cv=parts).fit(rows, labels)


def main(weights, data, components, clusters):
    embeddings = protonce.embed(weights, data)
    known = embeddings.labels >= 0
    rows, labels = embeddings.rows[known], embeddings.labels[known]
    for pipeline, scoring in [
        (clusterer(), "adjusted_mutual_info_score"),
        (classifier(), "balanced_accuracy"),
    ]:
        found = search(pipeline, rows, labels, components, clusters, scoring)
        print(f"{scoring} {found.best_score_:.3f} by {found.best_params_}")


if __name__ == "__main__":

    def numbers(text):
        return [int(number) for number in text.split(",")]

    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("weights", help="a run, or a file of weights")
    parser.add_argument("data", help="images in a folder for each class")
    parser.add_argument("--components", type=numbers, default=[16, 32, 64])
    parser.add_argument("--clusters", type=numbers, default=[10, 20, 50])
    main(**vars(parser.parse_args()))
