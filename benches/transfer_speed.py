#!/usr/bin/env python3
"""protonce's classifiers against scikit-learn's on the same features: accuracy and seconds, and features per second against
PyTorch.

    benches/transfer_speed.py classifiers                                  # synthetic features, 50 000 x 512, 10 classes
    benches/transfer_speed.py classifiers --train A --test B --data cifar10.tar   # features that `protonce eval` has kept
    benches/transfer_speed.py extraction --weights RUN --data cifar10.tar

A and B are files of the feature cache (`--cache DIR`), of the folders `train` and `test` of the data. Run with a Python that has
what benches/requirements.txt asks for. `cargo build --release` and `cargo bench --no-run` come first.
"""

import argparse
import glob
import io
import json
import os
import pathlib
import subprocess
import tarfile
import tempfile
import time

import numpy as np
from safetensors.numpy import load_file, save_file

STRENGTHS = (0.01, 0.1, 1.0)
ROOT = pathlib.Path(__file__).resolve().parent.parent


def synthetic(rows=50_000, tested=10_000, dim=512, classes=10):
    """Features like those of a ResNet: positive, correlated, classes that overlap."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(dim, dim)) * np.linspace(0.02, 1, dim)[:, None] ** 2 / np.sqrt(dim)
    centres = random.normal(size=(classes, dim)) * 0.35

    def draw(count):
        labels = random.integers(0, classes, count)
        features = np.maximum((centres[labels] + random.normal(size=(count, dim))) @ mixing + 0.1, 0)
        return features.astype(np.float32), labels.astype(np.int64)

    return draw(rows), draw(tested)


def kept(file, folder, data):
    """Features that protonce has kept, with the labels of the images in an archive's folder."""
    tensors = load_file(file)
    with tarfile.open(data) as archive:
        names = sorted(m.name for m in archive.getmembers() if m.isfile() and m.name.startswith(folder + "/"))
    classes = sorted({name.split("/")[1] for name in names})
    labels = np.array([classes.index(names[image].split("/")[1]) for image in tensors["images"]], dtype=np.int64)
    return tensors["rows"], labels


def bench_binary(name):
    found = glob.glob(str(ROOT / f"target/release/deps/{name}-*"))
    found = [path for path in found if os.access(path, os.X_OK) and "." not in os.path.basename(path)]
    if not found:
        raise SystemExit(f"no {name} bench: run cargo bench --no-run --bench {name} first")
    return max(found, key=os.path.getmtime)


def peer_classifiers(train, labels, test, truth):
    """Yields one result after the other: what and setting, seconds, percent right, objective, iterations."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    for c in STRENGTHS:
        begin = time.perf_counter()
        model = LogisticRegression(C=c, max_iter=10_000).fit(train, labels)
        seconds = time.perf_counter() - begin
        n = len(labels)
        log = model.predict_log_proba(train)
        objective = -log[np.arange(n), labels].mean() + (model.coef_**2).sum() / (2 * c * n)
        yield "logistic", c, seconds, 100 * model.score(test, truth), objective, int(model.n_iter_[0])
    normalised = [x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-5) for x in (train, test)]
    begin = time.perf_counter()
    decisions = []
    for number in range(labels.max() + 1):
        targets = np.where(labels == number, 1, -1)
        model = LinearSVC(C=0.5, class_weight={1: 2, -1: 1}, tol=1e-4, dual=True, max_iter=2000, random_state=0)
        decisions.append(model.fit(normalised[0], targets).decision_function(normalised[1]))
    accuracy = 100 * (np.argmax(decisions, axis=0) == truth).mean()
    yield "svm", 0.5, time.perf_counter() - begin, accuracy, None, None
    # A float64 reference of the weighted kNN.
    bank, queries = (x.astype(np.float64) for x in (train, test))
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    right = {k: 0 for k in (1, 20, 200)}
    begin = time.perf_counter()
    for start in range(0, len(queries), 500):
        similarity = queries[start : start + 500] @ bank.T
        nearest = np.argpartition(-similarity, 200, axis=1)[:, :200]
        values = np.take_along_axis(similarity, nearest, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        nearest, values = np.take_along_axis(nearest, order, axis=1), np.take_along_axis(values, order, axis=1)
        for k in right:
            votes = np.zeros((len(nearest), labels.max() + 1))
            for column in range(k):
                np.add.at(votes, (np.arange(len(nearest)), labels[nearest[:, column]]), np.exp(values[:, column] / 0.07))
            right[k] += (votes.argmax(axis=1) == truth[start : start + 500]).sum()
    seconds = (time.perf_counter() - begin) / len(right)
    for k, count in right.items():
        yield "knn", k, seconds, 100 * count / len(queries), None, None


def classifiers(arguments):
    if arguments.train:
        train, test = kept(arguments.train, "train", arguments.data), kept(arguments.test, "test", arguments.data)
    else:
        train, test = synthetic()
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "features.safetensors")
        tensors = {"train.features": train[0], "train.labels": train[1], "test.features": test[0], "test.labels": test[1]}
        save_file(tensors, file)
        output = subprocess.run([bench_binary("transfer"), file], check=True, capture_output=True, text=True).stdout
    ours = {(line["what"], line.get("c", line.get("k"))): line for line in map(json.loads, output.splitlines())}
    print(f"{train[0].shape[0]} x {train[0].shape[1]} features, {os.cpu_count()} cores\n")
    print("| | peer, s | protonce, s | ratio | peer, % | protonce, % | peer, objective | protonce, objective | iterations |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for what, setting, seconds, accuracy, objective, iterations in peer_classifiers(*train, *test):
        mine = ours[what, setting]
        objectives = f"{objective:.6f} | {mine['objective']:.6f} | {iterations}, {mine['passes']}" if objective else "| |"
        name = {"logistic": "logistic regression, C", "svm": "SVM, C", "knn": "kNN, k"}[what]
        print(f"| {name} {setting} | {seconds:.2f} | {mine['seconds']:.2f} | {seconds / mine['seconds']:.1f} | "
              f"{accuracy:.2f} | {mine['top1']:.2f} | {objectives} |", flush=True)


def peer_extraction(data, folder, count, batch):
    """Images per second of a torchvision ResNet-18 with CIFAR's stem, channels-last, batch norm in evaluation mode."""
    import torch
    import torchvision
    from PIL import Image

    class Images(torch.utils.data.Dataset):
        def __init__(self):
            self.archive = None
            with tarfile.open(data) as archive:
                members = (m for m in archive.getmembers() if m.isfile() and m.name.startswith(folder + "/"))
                self.members = sorted(members, key=lambda m: m.name)[:count]
            self.view = torchvision.transforms.Compose([
                torchvision.transforms.ToTensor(),
                torchvision.transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
            ])

        def __len__(self):
            return len(self.members)

        def __getitem__(self, index):
            if self.archive is None:
                self.archive = open(data, "rb")
            self.archive.seek(self.members[index].offset_data)
            return self.view(Image.open(io.BytesIO(self.archive.read(self.members[index].size))).convert("RGB"))

    model = torchvision.models.resnet18()
    model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool, model.fc = torch.nn.Identity(), torch.nn.Identity()
    model = model.eval().to(memory_format=torch.channels_last)
    loader = torch.utils.data.DataLoader(Images(), batch_size=batch, num_workers=min(2, os.cpu_count() or 1))
    begin, seen = time.perf_counter(), 0
    with torch.inference_mode():
        for images in loader:
            seen += len(model(images.contiguous(memory_format=torch.channels_last)))
    return seen / (time.perf_counter() - begin)


def our_extraction(weights, data, folder, count):
    """Images per second of the feature extraction of `protonce eval`, from encoded bytes to features, as it reports itself; the
    test images come on top of `count`."""
    command = [str(ROOT / "target/release/protonce"), "eval", "linear", "--weights", weights, "--train", f"{data}#{folder}",
               "--test", f"{data}#test", "--no-cache", "--per-class", str(count // 10), "--c", "1", "--json"]
    output = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return output["extraction"]["images_per_second"]


def extraction(arguments):
    rows = []
    for _ in range(arguments.repetitions):
        theirs = peer_extraction(arguments.data, "train", arguments.count, 256)
        ours = our_extraction(arguments.weights, arguments.data, "train", arguments.count)
        rows.append((theirs, ours))
        print(f"peer {theirs:.0f} images/s, protonce {ours:.0f} images/s: {ours / theirs:.2f}", flush=True)
    theirs, ours = (float(np.median(column)) for column in zip(*rows))
    print(f"medians: peer {theirs:.0f} images/s, protonce {ours:.0f} images/s: {ours / theirs:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    race = commands.add_parser("classifiers")
    race.add_argument("--train")
    race.add_argument("--test")
    race.add_argument("--data")
    race.set_defaults(run=classifiers)
    race = commands.add_parser("extraction")
    race.add_argument("--weights", required=True)
    race.add_argument("--data", required=True)
    race.add_argument("--count", type=int, default=10_000)
    race.add_argument("--repetitions", type=int, default=3)
    race.set_defaults(run=extraction)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
