"""Groups the embeddings of any model by direction and chooses how many groups; needs scikit-learn.

python examples/cluster_embeddings.py embeddings.npy --out groups.csv
python examples/cluster_embeddings.py embeddings.npy --labels labels.txt --clusters 5,10,20

Embeddings are an .npy array [items, dim] of whatever made them: CLIP, DINO, a text model,
`protonce embed`. They are read where they lie, so that a file may be larger than memory.
"""

import argparse
import csv

import numpy as np
from sklearn.metrics import silhouette_score

import protonce


def choose(embeddings, counts, sample=5000, seed=0):
    """Clusters by each number in `counts`: the best by silhouette, and what each came to.

    The objective only falls with the number of clusters, so it cannot choose. The silhouette compares
    how close an item is to its own cluster and to the next one: 1 is apart, 0 is arbitrary.
    """
    rows = np.random.default_rng(seed).permutation(len(embeddings))[:sample]
    fits, silhouettes = [], []
    for count in counts:
        kmeans = protonce.KMeans(count, metric="spherical", n_init=5, random_state=seed)
        fits.append(kmeans.fit(embeddings))
        labels = kmeans.labels_[rows]
        # Of a single cluster, or of one item each, nothing can be said.
        defined = 1 < len(np.unique(labels)) < len(rows)
        silhouettes.append(
            silhouette_score(embeddings[rows], labels, metric="cosine") if defined else -1.0
        )
    return fits[int(np.argmax(silhouettes))], fits, silhouettes


def typical(kmeans, embeddings, cluster, count):
    """The items of a cluster that are closest to its centre, closest first."""
    [members] = np.nonzero(kmeans.labels_ == cluster)
    distance = kmeans.transform(embeddings[members])[:, cluster]
    return members[np.argsort(distance, kind="stable")[:count]]


def main(embeddings, clusters, labels, out, seed):
    embeddings = np.load(embeddings, mmap_mode="r")
    best, fits, silhouettes = choose(embeddings, clusters, seed=seed)
    for kmeans, silhouette in zip(fits, silhouettes):
        chosen = "  <- chosen" if kmeans is best else ""
        print(
            f"{kmeans.n_clusters:6} clusters: objective {kmeans.inertia_ / len(embeddings):.4f}, "
            f"silhouette {silhouette:.3f}{chosen}"
        )
    for cluster in np.argsort(-np.bincount(best.labels_))[:10]:
        size = np.count_nonzero(best.labels_ == cluster)
        print(f"cluster {cluster}: {size} items, most typical {typical(best, embeddings, cluster, 5)}")
    if labels is not None:
        with open(labels, encoding="utf-8") as file:
            _, truth = np.unique(file.read().splitlines(), return_inverse=True)
        for name, value in protonce.cluster_metrics(truth, best.labels_).items():
            print(f"{name}: {value:.3f}")
    with open(out, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["item", "cluster"])
        table.writerows(enumerate(best.labels_.tolist()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("embeddings", help="an .npy array [items, dim]")
    parser.add_argument(
        "--clusters",
        default=[2, 4, 8, 16, 32, 64],
        type=lambda text: [int(count) for count in text.split(",")],
        help="numbers to choose from",
    )
    parser.add_argument("--labels", help="text with a label a line, to compare the clusters with")
    parser.add_argument("--out", default="groups.csv")
    parser.add_argument("--seed", default=0, type=int)
    main(**vars(parser.parse_args()))
