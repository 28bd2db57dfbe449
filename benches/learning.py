#!/usr/bin/env python3
"""What pretraining is worth: trains settings of `pretrain` on a few thousand images with paired seeds, judges the features with
labels, and keeps every result in benches/learning.tsv.

    benches/learning.py screen --cifar10 cifar10.tar                      # all settings of the screening, seeds 0 to 2
    benches/learning.py screen --cifar10 cifar10.tar --only small,batch-64 --seeds 0
    benches/learning.py confirm --cifar10 cifar10.tar                     # the small stem, 10 000 images, seeds 0 to 4
    benches/learning.py confirm-few --cifar10 cifar10.tar                 # 5 000 images for twice as many epochs
    benches/learning.py emoji --emoji demo/data                           # other images, for which nothing was tuned
    benches/learning.py table screen                                      # what is known, as Markdown, and what the rank tells

`cargo build --release` comes first: the table names the commit that is checked out. A setting and a seed that the table has are not trained again; `--again` does.
"""

import argparse
import json
import os
import pathlib
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = ROOT / "benches/learning.tsv"
COLUMNS = ["protocol", "setting", "seed", "commit", "epochs", "seconds", "processor seconds", "kNN 20", "kNN 200", "linear", "SVM full", "AMI x 100", "effective rank", "flags"]
MEASURES = COLUMNS[7:12]

# A line of events for every hundred steps is enough.
COMMON = "--log-every 100 --keep 1"

# Where images are: what the option of this name says of training and of test images, and flags that they need.
IMAGES = {
    "cifar10": ("{}#train", "{}#test", "--mean 0.4914,0.4822,0.4465 --std 0.2470,0.2435,0.2616"),
    "emoji": ("{}/train", "{}/test", "--stats auto"),
}

PROTOCOLS = {
    # A sixteenth of the cost of the small stem: settings are told apart, figures are low.
    "screen": {"images": "cifar10", "per_class": 500, "seeds": [0, 1, 2], "common": "--preset small --stem imagenet --epochs 20 --warmup-epochs 2"},
    # As many images seen, of twice and of once as many.
    "confirm": {"images": "cifar10", "per_class": 1000, "seeds": [0, 1, 2, 3, 4], "common": "--preset small --epochs 20 --warmup-epochs 5"},
    "confirm-few": {"images": "cifar10", "per_class": 500, "seeds": [0, 1, 2, 3, 4], "common": "--preset small --epochs 40 --warmup-epochs 5"},
    # All 3 134 drawings, in classes of any size.
    "emoji": {"images": "emoji", "per_class": 0, "seeds": [0, 1, 2], "common": "--preset small --stem imagenet --image-size 64 --epochs 20 --warmup-epochs 2"},
}

SETTINGS = json.loads((ROOT / "benches/learning.json").read_text())


def by_name(flags):
    words = shlex.split(flags)
    return dict(zip(words[::2], words[1::2], strict=True))


def flags_of(protocol, setting):
    """The flags of a setting by name; `OTHER + FLAGS` is another setting with flags added or replaced."""
    other, plus, own = SETTINGS[protocol][setting].rpartition(" + ")
    return (flags_of(protocol, other) if plus else {}) | by_name(own)


def all_flags_of(protocol, setting):
    needed = IMAGES[PROTOCOLS[protocol]["images"]][2]
    return by_name(f"{COMMON} {needed} {PROTOCOLS[protocol]['common']}") | flags_of(protocol, setting)


def images_of(options, protocol):
    """Training images, test images, and the flags that choose among them."""
    name = PROTOCOLS[protocol]["images"]
    place = getattr(options, name) or sys.exit(f"{protocol} needs --{name}")
    train, test, _ = (part.format(place) for part in IMAGES[name])
    few = PROTOCOLS[protocol]["per_class"]
    return train, test, ["--per-class", str(few)] if few else []


def epochs_of(options, protocol, setting, seed):
    """How many epochs to train. `--epochs @OTHER` is as many as take the processor time of another setting with this seed: on an
    idle machine that is equal time by the clock, and on any other it still is when clocks tell nothing. An epoch of this setting costs
    what it cost with another seed, or in a trial of a few epochs."""
    asked = all_flags_of(protocol, setting)["--epochs"]
    if not asked.startswith("@"):
        return int(asked)
    rows = [row for row in read_table() if row["protocol"] == protocol]
    other = [row for row in rows if row["setting"] == asked[1:] and row["seed"] == str(seed)]
    if not other:
        sys.exit(f"{setting} takes the time of {asked[1:]}, which has not been trained with seed {seed}")
    known = [row for row in rows if row["setting"] == setting]
    if known:
        each = statistics.fmean(float(row["processor seconds"]) / int(row["epochs"]) for row in known)
    else:
        with tempfile.TemporaryDirectory(prefix="protonce-learning-") as folder:
            # What every run takes once, such as its start, is in both.
            short, longer = (pretrain(options, protocol, setting, seed, pathlib.Path(folder, str(n)), n)[1] for n in (4, 6))
        each = (longer - short) / 2
    return max(1, int(float(other[-1]["processor seconds"]) / each))


def pretrain(options, protocol, setting, seed, run, epochs):
    """Trains and gives the seconds that passed, and those of processors."""
    flags = all_flags_of(protocol, setting) | {"--epochs": str(epochs)}
    images, _, chosen = images_of(options, protocol)
    command = [options.protonce, "pretrain", images, "--out", str(run), "--seed", str(seed), "--quiet", *chosen]
    command += [word for flag in flags.items() for word in flag]
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def commit():
    describe = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=10"], cwd=ROOT, capture_output=True, text=True)
    return describe.stdout.strip()


def read_table():
    if not TABLE.exists():
        return []
    lines = TABLE.read_text().splitlines()
    return [dict(zip(lines[0].split("\t"), line.split("\t"))) for line in lines[1:]]


def append(row):
    if not TABLE.exists():
        TABLE.write_text("\t".join(COLUMNS) + "\n")
    with TABLE.open("a") as file:
        file.write("\t".join(str(row[column]) for column in COLUMNS) + "\n")


def measure(options, protocol, weights, *more):
    """The figures of `eval all`, percent."""
    images, test_images, chosen = images_of(options, protocol)
    command = [options.protonce, "eval", "all", "--weights", weights, "--train", images, "--test", test_images, *chosen]
    command += ["--skip", "semi", "--no-cache", "--json", *more]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["all"]
    knn = {entry["k"]: entry["top1"] for entry in found["knn"]}
    full = next(entry["mean"] for entry in found["svm"]["results"] if not entry["shots"])
    values = [knn[20], knn[200], found["linear"]["top1"], full, 100 * found["cluster"]["ami"]]
    return dict(zip(MEASURES, (f"{value:.2f}" for value in values)))


def effective_rank(run):
    """That of the embeddings of the last E-step; nothing without one."""
    events = [json.loads(line) for line in pathlib.Path(run, "events.jsonl").read_text().splitlines()]
    ranks = [event["effective_rank"] for event in events if event["event"] == "expectation"]
    return f"{ranks[-1]:.1f}" if ranks else ""


def train(options, protocol, setting, seed):
    flags = " ".join(f"{name} {value}" for name, value in flags_of(protocol, setting).items())
    with tempfile.TemporaryDirectory(prefix="protonce-learning-") as folder:
        run = str(pathlib.Path(options.keep, f"{protocol}-{setting}-{seed}") if options.keep else pathlib.Path(folder, "run"))
        epochs = epochs_of(options, protocol, setting, seed)
        seconds, processor = pretrain(options, protocol, setting, seed, run, epochs)
        row = {"protocol": protocol, "setting": setting, "seed": seed, "commit": commit(), "epochs": epochs, "flags": flags}
        row["effective rank"] = effective_rank(run)
        row |= {"seconds": f"{seconds:.0f}", "processor seconds": f"{processor:.0f}", **measure(options, protocol, run)}
        append(row)
        known = [line for line in read_table() if (line["protocol"], line["setting"], line["seed"]) == (protocol, "untrained", str(seed))]
        if not known:
            floor = measure(options, protocol, run, "--untrained", "--seed", str(seed))
            append({**row, "setting": "untrained", "seconds": 0, "processor seconds": 0, "effective rank": "", "flags": "", **floor})
        print(setting, seed, f"{seconds:.0f} s", *(f"{name} {row[name]}" for name in MEASURES), flush=True)


def run(options):
    protocol = options.what
    known = {(row["protocol"], row["setting"], row["seed"]) for row in read_table()}
    chosen = options.only.split(",") if options.only else list(SETTINGS[protocol])
    seeds = [int(seed) for seed in options.seeds.split(",")] if options.seeds else PROTOCOLS[protocol]["seeds"]
    for seed in seeds:
        for setting in chosen:
            if options.again or (protocol, setting, str(seed)) not in known:
                train(options, protocol, setting, seed)
    table(protocol)


def table(protocol):
    """Means and deviations over seeds."""
    rows = [row for row in read_table() if row["protocol"] == protocol]
    settings = sorted({row["setting"] for row in rows}, key=lambda setting: setting != "untrained")
    print(f"| setting | seeds | processor seconds | {' | '.join(MEASURES)} |\n| --- | ---: | ---: | {' | '.join('---:' for _ in MEASURES)} |")
    for setting in settings:
        of = [row for row in rows if row["setting"] == setting]
        cells = []
        for name in MEASURES:
            values = [float(row[name]) for row in of]
            deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.2f}{deviation}")
        seconds = statistics.median(float(row["processor seconds"]) for row in of)
        print(f"| {setting} | {len(of)} | {seconds:.0f} | {' | '.join(cells)} |")


def ranks(values):
    """Places in ascending order, from 0; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    places = [0.0] * len(values)
    for at in range(len(values)):
        equal = [place for place, index in enumerate(order) if values[index] == values[at]]
        places[at] = statistics.fmean(equal)
    return places


def correlations(protocol):
    """Spearman's correlation of the effective rank, which needs no labels, with what labels say."""
    rows = [row for row in read_table() if row["protocol"] == protocol and row["effective rank"]]
    print(f"\nRank correlation of the effective rank over {len(rows)} runs:")
    for name in MEASURES:
        pairs = [ranks([float(row[column]) for row in rows]) for column in ("effective rank", name)]
        if len(rows) > 2:
            print(f"  {name}: {statistics.correlation(*pairs):.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*PROTOCOLS, "table"])
    parser.add_argument("protocol", nargs="?", choices=PROTOCOLS, help="of `table`")
    parser.add_argument("--cifar10", help="a tar of train/CLASS and test/CLASS")
    parser.add_argument("--emoji", help="the folder that scripts/demo_data.py has made")
    parser.add_argument("--only", help="SETTING,…")
    parser.add_argument("--seeds", help="N,…")
    parser.add_argument("--again", action="store_true", help="train also what the table has")
    parser.add_argument("--keep", help="a folder in which the runs stay")
    parser.add_argument("--protonce", default=os.environ.get("PROTONCE", str(ROOT / "target/release/protonce")))
    options = parser.parse_args()
    if options.what == "table":
        table(options.protocol or "screen")
        correlations(options.protocol or "screen")
    else:
        run(options)


if __name__ == "__main__":
    main()
