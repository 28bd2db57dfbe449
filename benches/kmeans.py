#!/usr/bin/env python3
"""Races `protonce cluster` against faiss-cpu and scikit-learn: same rows, same first centroids, in turn.
With several starts, the published setting, each draws its own at random and keeps the best.

    benches/kmeans.py compare --rows E.npy --sizes 50000x1000,200000x5000
    benches/kmeans.py compare --rows E.npy --sizes 50000x1000 --starts 5
    benches/kmeans.py pass --rows E.npy --sizes 1281167x25000
    benches/kmeans.py scaling --rows E.npy
    benches/kmeans.py iterations --rows E.npy --sizes 50000x1000

`--rows isotropic` takes random numbers without structure instead, where nothing but codes saves work.
Times are those of the clustering itself: reading the file is in nobody's. In `compare` each run has a process of its own.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

PROGRAM = Path(os.environ.get("PROTONCE", Path(__file__).resolve().parent.parent / "target/release/protonce"))


def load(name, count, dim):
    if name != "isotropic":
        rows = np.load(name, mmap_mode="r")
        if len(rows) < count:
            raise SystemExit(f"{name} has {len(rows)} rows: expected {count} or more")
        # Evenly spread, so that a sorted file makes no difference.
        return np.ascontiguousarray(rows[:: len(rows) // count][:count], dtype=np.float32)
    rows = np.random.default_rng(0).standard_normal((count, dim), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def protonce(file, clusters, iterations, threads, redo=1, seed=0):
    """One granularity of `clusters.json`, and the centroids and assignment."""
    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as out:
        subprocess.run(
            [PROGRAM, "cluster", "--embeddings", file, "--clusters", str(clusters), "--out", out]
            + ["--iterations", str(iterations), "--redo", str(redo), "--seed", str(seed)]
            + ["--threads", str(threads), "--device", "cpu", "--quiet"],
            check=True,
        )
        summary = json.loads(Path(out, "clusters.json").read_text())["granularities"][0]
        tensors = load_file(Path(out, "clusters.safetensors"))
    return summary, tensors["centroids.0"], tensors["assignment.0"]


def alone(fit, *arguments):
    """Calls a function in a new process, as our program has one for every run."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(fit, arguments)


def faiss_fit(file, start, iterations, starts):
    import faiss

    rows = np.load(file)
    kmeans = faiss.Kmeans(
        rows.shape[1], len(start), niter=iterations, nredo=starts, max_points_per_centroid=10**9
    )
    begin = time.perf_counter()
    kmeans.train(rows, init_centroids=start if starts == 1 else None)
    # Ours ends with an assignment to the last centroids; so that both do the same, so does this.
    squared, _ = kmeans.index.search(rows, 1)
    return time.perf_counter() - begin, float(squared.sum(dtype=np.float64))


def sklearn_fit(file, start, iterations, starts):
    from sklearn.cluster import KMeans

    rows = np.load(file)
    init = start if starts == 1 else "random"
    kmeans = KMeans(len(start), init=init, n_init=starts, max_iter=iterations, tol=0, algorithm="lloyd")
    begin = time.perf_counter()
    kmeans.fit(rows)
    return time.perf_counter() - begin, float(kmeans.inertia_)


def saved(rows, folder):
    file = Path(folder, "rows.npy")
    np.save(file, rows)
    return file


def sizes(text):
    return [tuple(int(number) for number in pair.split("x")) for pair in text.split(",")]


def compare(options):
    print("| rows | clusters | protonce | faiss | ratio | scikit-learn | ratio | objective / faiss's |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for count, clusters in sizes(options.sizes):
        rows = load(options.rows, count, options.dim)
        with tempfile.TemporaryDirectory() as folder:
            file = saved(rows, folder)
            _, start, _ = protonce(file, clusters, 0, options.threads)
            ours, theirs, others, objectives = [], [], [], []
            for _ in range(options.repetitions):
                summary, *_ = protonce(file, clusters, options.iterations, options.threads, options.starts)
                ours.append(summary["seconds"])
                seconds, objective = alone(faiss_fit, file, start, options.iterations, options.starts)
                theirs.append(seconds)
                objectives.append(summary["total"] / objective)
                if options.sklearn:
                    others.append(alone(sklearn_fit, file, start, options.iterations, options.starts)[0])
        ours, theirs = np.median(ours), np.median(theirs)
        other = f"{np.median(others):.2f} s | {np.median(others) / ours:.1f} ×" if others else "|"
        print(
            f"| {count} | {clusters} | {ours:.2f} s | {theirs:.2f} s | {theirs / ours:.1f} × | {other}"
            f" | {np.median(objectives):.5f} |",
            flush=True,
        )


def one_pass(options):
    import faiss

    print("| rows | clusters | protonce | faiss | ratio | rows assigned otherwise |")
    print("| --- | --- | --- | --- | --- | --- |")
    for count, clusters in sizes(options.sizes):
        rows = load(options.rows, count, options.dim)
        with tempfile.TemporaryDirectory() as folder:
            summary, centroids, assignment = protonce(saved(rows, folder), clusters, 0, options.threads)
        index = faiss.IndexFlatL2(rows.shape[1])
        index.add(centroids)
        begin = time.perf_counter()
        _, nearest = index.search(rows, 1)
        seconds = time.perf_counter() - begin
        different = nearest[:, 0] != assignment
        # Two centroids may be equally near but for rounding.
        gap = [
            abs(np.linalg.norm(rows[i] - centroids[assignment[i]]) - np.linalg.norm(rows[i] - centroids[nearest[i, 0]]))
            for i in np.flatnonzero(different)
        ]
        note = f"{different.sum()}" + (f", distances within {max(gap):.0e}" if gap else "")
        ours = summary["seconds"]
        print(f"| {count} | {clusters} | {ours:.2f} s | {seconds:.2f} s | {seconds / ours:.1f} × | {note} |", flush=True)


def scaling(options):
    print("| rows | clusters | seconds | per row and cluster |")
    print("| --- | --- | --- | --- |")
    for count, clusters in sizes(options.sizes):
        rows = load(options.rows, count, options.dim)
        with tempfile.TemporaryDirectory() as folder:
            file = saved(rows, folder)
            times = [
                protonce(file, clusters, options.iterations, options.threads)[0]["seconds"]
                for _ in range(options.repetitions)
            ]
        seconds = np.median(times)
        print(f"| {count} | {clusters} | {seconds:.2f} | {seconds / count / clusters * 1e9:.2f} ns |", flush=True)


def iterations(options):
    print("| rows | clusters | iteration | seconds | rows that changed | scored | measured in float32 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for count, clusters in sizes(options.sizes):
        rows = load(options.rows, count, options.dim)
        with tempfile.TemporaryDirectory() as folder:
            summary, *_ = protonce(saved(rows, folder), clusters, options.iterations, options.threads)
        every = count * clusters
        for number, found in enumerate(summary["iterations"]):
            print(
                f"| {count} | {clusters} | {number} | {found['seconds']:.3f} | {found['changed'] / count:.2%}"
                f" | {found['scored'] / every:.1%} | {found['measured'] / every:.3%} |"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["compare", "pass", "scaling", "iterations"])
    parser.add_argument("--rows", default="isotropic", help="an .npy of embeddings, or isotropic")
    parser.add_argument("--sizes", default="50000x1000", help="ROWSxCLUSTERS,…")
    parser.add_argument("--dim", type=int, default=128, help="of isotropic rows")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--starts", type=int, default=1, help="of `compare`")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--sklearn", action="store_true", help="race scikit-learn too")
    options = parser.parse_args()
    {"compare": compare, "pass": one_pass, "scaling": scaling, "iterations": iterations}[options.what](options)


if __name__ == "__main__":
    main()
