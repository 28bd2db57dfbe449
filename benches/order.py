#!/usr/bin/env python3
"""Does more method give a better representation? PCL against MoCo (PCL without prototypes), untrained weights and chance,
trained for the same budget, over seeds: a Markdown table of kNN, linear, low-shot SVM and AMI.

    benches/order.py --pcl pcl-0 pcl-1 pcl-2 --moco moco-0 moco-1 moco-2 --train cifar10.tar#train --test cifar10.tar#test

`cargo build --release` comes first. Features are kept (`--cache`), so that a second call takes seconds.
"""

import argparse
import concurrent.futures
import json
import pathlib
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def evaluate(arguments, weights, *more):
    command = [arguments.protonce, "eval", "all", "--weights", weights, "--train", arguments.train, "--test", arguments.test,
               "--per-class", str(arguments.per_class), "--skip", "semi", "--json", *more]
    if arguments.cache:
        command += ["--cache", arguments.cache]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["all"]
    row = {f"kNN k {entry['k']}": entry["top1"] for entry in found["knn"]}
    row["linear"] = found["linear"]["top1"]
    for entry in found["svm"]["results"]:
        row[f"SVM {entry['shots'] or 'full'}"] = entry["mean"]
    row["AMI x 100"] = 100 * found["cluster"]["ami"]
    return row


def figure(values):
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pcl", nargs="+", required=True, help="run folders, one a seed")
    parser.add_argument("--moco", nargs="+", required=True, help="run folders, one a seed")
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--per-class", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=10, help="for the accuracy of chance")
    parser.add_argument("--cache")
    parser.add_argument("--jobs", type=int, default=1, help="evaluations at a time")
    parser.add_argument("--protonce", default=str(ROOT / "target/release/protonce"))
    arguments = parser.parse_args()
    untrained = [(arguments.pcl[0], "--untrained", "--seed", str(seed)) for seed in range(len(arguments.pcl))]
    runs = {"PCL": [(run,) for run in arguments.pcl], "MoCo": [(run,) for run in arguments.moco], "untrained": untrained}
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        started = {name: [pool.submit(evaluate, arguments, *run) for run in of] for name, of in runs.items()}
        contenders = {name: [evaluation.result() for evaluation in of] for name, of in started.items()}
    print(f"{', '.join(f'{name}: {len(rows)} seeds' for name, rows in contenders.items())}; "
          f"{arguments.per_class} training images a class\n")
    print(f"| | {' | '.join(contenders)} | chance | order holds |")
    print(f"| --- | {' | '.join('---:' for _ in contenders)} | ---: | --- |")
    for name in contenders["PCL"][0]:
        columns = [[row[name] for row in rows] for rows in contenders.values()]
        chance = 0.0 if name.startswith("AMI") else 100 / arguments.classes
        means = [statistics.fmean(column) for column in columns] + [chance]
        holds = "yes" if all(a > b for a, b in zip(means, means[1:])) else "no"
        print(f"| {name} | {' | '.join(map(figure, columns))} | {chance:.2f} | {holds} |")


if __name__ == "__main__":
    main()
