#!/usr/bin/env python3
"""protonce against a tuned PyTorch on this machine: images per second of training, and memory.

Both train on the same images from encoded bytes to optimiser step, with prototypes present, one after the other and again
(A B A B …), because a machine's speed drifts. The table gives medians and the ratio of medians.

    benches/train_speed.py --cifar10 cifar10.tar --photos photos.tar

The Python of the peer is that of `PROTONCE_PEER_PYTHON`, or else of `.venv`, which is made from benches/requirements.txt
when it is missing. `cargo build --release` comes first.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEER = ROOT / "benches/peer/pcl.py"
REQUIREMENTS = ROOT / "benches/requirements.txt"

# What both sides are told, under protonce's names; the peer's options have the same names.
ROWS = {
    "small": {
        "title": "ResNet-18",
        "images": "cifar10",
        "folder": "train",
        "preset": "small",
        "flags": {
            "arch": "resnet18",
            "image-size": 32,
            "batch-size": 256,
            "queue": 4096,
            "negatives": 4096,
            "clusters": "250,500,1000",
            "per-class": 256,
        },
    },
    "photographs": {
        "title": "ResNet-50",
        "images": "photos",
        "folder": None,
        "preset": "v2",
        "flags": {
            "arch": "resnet50",
            "image-size": 224,
            "batch-size": 32,
            "queue": 16384,
            "negatives": 16384,
            "clusters": "4,8,16",
        },
    },
}


def protonce_command(row, data, precision, out, options):
    """The one place that knows protonce's command line."""
    source = f"{data}#{row['folder']}" if row["folder"] else data
    command = [options.protonce, "pretrain", source, "--out", out, "--preset", row["preset"], "--precision", precision]
    command += ["--device", options.device, "--loader-threads", str(options.workers or 0)]
    for name, value in row["flags"].items():
        command += [f"--{name}", str(value)]
    # Prototypes from the first step on, and a line for each step.
    steps = options.warmup_steps + options.steps
    return command + ["--warmup-epochs", "0", "--epochs", "100", "--max-steps", str(steps), "--log-every", "1", "--seed", "0"]


def peer_command(row, data, precision, options):
    command = [options.python, str(PEER), "speed", "--data", data, "--precision", precision, "--seed", "0"]
    command += ["--device", options.device, "--workers", str(options.workers or 2)]
    if row["folder"]:
        command += ["--folder", row["folder"]]
    for name, value in row["flags"].items():
        command += [f"--{name}", str(value)]
    return command + ["--warmup-steps", str(options.warmup_steps), "--steps", str(options.steps), "--step-only", "0"]


# ---------------------------------------------------------------- running and watching


class Memory(threading.Thread):
    """Peak memory of a process and all its descendants, sampled; a page that several of them share counts once. MiB."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.peak, self.ended = process, 0.0, threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(0.5):
            self.peak = max(self.peak, sum(proportional(process) for process in family(self.process)) / 1024)


def family(process):
    members = [process]
    for task in pathlib.Path(f"/proc/{process}/task").glob("*/children"):
        try:
            for child in task.read_text().split():
                members += family(int(child))
        except OSError:
            continue  # it ended meanwhile
    return members


def proportional(process):
    try:
        for line in pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def run_peer(row, data, precision, options):
    command = peer_command(row, data, precision, options)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    memory = Memory(process.pid)
    output, _ = process.communicate()
    memory.ended.set()
    if process.returncode:
        sys.exit(f"the peer ended with {process.returncode}: {' '.join(command)}")
    return {
        "images_per_second": json.loads(output.splitlines()[-1])["images_per_second"],
        "peak_mib": memory.peak,
    }


def run_protonce(row, data, precision, options):
    with tempfile.TemporaryDirectory(prefix="protonce-bench-") as folder:
        out = pathlib.Path(folder, "run")
        command = [str(word) for word in protonce_command(row, data, precision, out, options)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        memory = Memory(process.pid)
        _, complaint = process.communicate()
        memory.ended.set()
        steps = logged_steps(out)
    timed = steps[options.warmup_steps:]
    if process.returncode or len(timed) < options.steps:
        sys.exit(
            f"protonce ended with {process.returncode} after {len(steps)} of {options.warmup_steps + options.steps} steps: "
            f"{' '.join(command)}\n{complaint[-2000:]}"
        )
    return {
        "images_per_second": sum(step["images"] for step in timed) / sum(step["seconds"] for step in timed),
        "peak_mib": memory.peak,
    }


def logged_steps(run):
    try:
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    except OSError:
        return []
    return [event for event in events if event["event"] == "step"]


# ---------------------------------------------------------------- what is printed


def compare(name, data, options):
    row = ROWS[name] | {"flags": ROWS[name]["flags"] | dict(setting.split("=", 1) for setting in options.set)}
    row["title"] += f", {row['flags']['image-size']} px, batch {row['flags']['batch-size']}"
    sides = {"peer": run_peer, "protonce": run_protonce}
    if options.only:
        sides = {options.only: sides[options.only]}
    runs = {side: [] for side in sides}
    for repetition in range(options.repetitions):
        for side, run in sides.items():
            load = os.getloadavg()[0]
            result = run(row, data, options.precision, options) | {"load_before": load}
            runs[side].append(result)
            print(
                f"{row['title']}: {side} {repetition + 1} of {options.repetitions}: "
                f"{result['images_per_second']:.1f} images/s, {result['peak_mib']:.0f} MiB (load before: {load:.1f})",
                file=sys.stderr,
            )
    summary = {"row": name, "title": row["title"], "precision": options.precision, "runs": runs}
    for side in sides:
        summary[side] = {
            "images_per_second": statistics.median(result["images_per_second"] for result in runs[side]),
            "peak_mib": max(result["peak_mib"] for result in runs[side]),
        }
    if len(sides) == 2:
        summary["ratio"] = summary["protonce"]["images_per_second"] / summary["peer"]["images_per_second"]
    return summary


def table(summaries):
    yield "| setting | precision | PyTorch, images/s | protonce, images/s | ratio | PyTorch, MiB | protonce, MiB |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"

    def cell(summary, side, name, digits):
        return f"{summary[side][name]:.{digits}f}" if side in summary else "–"

    for summary in summaries:
        ratio = f"{summary['ratio']:.2f}" if "ratio" in summary else "–"
        speeds = " | ".join(cell(summary, side, "images_per_second", 1) for side in ("peer", "protonce"))
        memories = " | ".join(cell(summary, side, "peak_mib", 0) for side in ("peer", "protonce"))
        yield f"| {summary['title']} | {summary['precision']} | {speeds} | {ratio} | {memories} |"


def has_bf16():
    """Whether this processor multiplies bf16 itself; without, bf16 is slower than float32."""
    try:
        flags = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16"))


def peer_python():
    if chosen := os.environ.get("PROTONCE_PEER_PYTHON"):
        return chosen
    python = ROOT / ".venv/bin/python"
    if not python.exists():
        print("setting up .venv for the peer", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", ROOT / ".venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)
    return str(python)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", help="a tar with train/CLASS/*.jpg, 32 px")
    parser.add_argument("--photos", help="a tar of photographs")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--workers", type=int, help="that make views; else 2 of the peer's, a thread a core of protonce's")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another batch-size, say, for both")
    parser.add_argument("--precision", choices=["auto", "float32", "bf16"], default="auto")
    parser.add_argument("--repetitions", type=int, default=3, help="runs of each side; more where the machine is busy")
    parser.add_argument("--warmup-steps", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="timed steps of a run")
    parser.add_argument("--only", choices=["peer", "protonce"])
    parser.add_argument("--protonce", default=ROOT / "target/release/protonce", help="the program to measure")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    if not (options.cifar10 or options.photos):
        parser.error("nothing to train on: give --cifar10 TAR, --photos TAR or both")
    if options.precision == "auto":
        options.precision = "bf16" if options.device != "cpu" or has_bf16() else "float32"
    if options.only != "peer" and not pathlib.Path(options.protonce).exists():
        sys.exit(f"{options.protonce} is missing: run cargo build --release first")
    options.python = peer_python() if options.only != "protonce" else None

    sources = {"cifar10": options.cifar10, "photos": options.photos}
    summaries = [compare(name, sources[row["images"]], options) for name, row in ROWS.items() if sources[row["images"]]]
    if options.json:
        print(json.dumps({"processors": os.cpu_count(), "rows": summaries}))
    else:
        print("\n".join(table(summaries)))


if __name__ == "__main__":
    main()
