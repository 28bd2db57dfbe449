#!/usr/bin/env python3
"""Races the image pipelines of Python on one thread, and prints a Markdown table.

views_speed.py --cifar10 cifar10.tar --photos photos.tar

Wants `cargo build --release` and, for the peers, the Python that PROTONCE_PEER_PYTHON names (torch,
torchvision, pillow; albumentationsx if it is there).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = os.environ.get("PROTONCE_PEER_PYTHON", str(ROOT / ".venv/bin/python"))
PEERS = ["torchvision", "tensors", "albumentations"]


def ours(data, size, threads):
    """Images a second of our loader, the best of a few passes."""
    command = ["cargo", "bench", "-q", "-p", "protonce-images", "--bench", "views", "--"]
    command += ["--race", str(data), str(size), str(threads)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(result.stdout.split()[-1])


def peer(name, size, *where):
    command = [PYTHON, ROOT / "benches/peer/views.py", name, str(size), *map(str, where)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        print(f"{name} left out: {result.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(result.stdout)["images_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    arguments = parser.parse_args()
    races = [
        (32, (arguments.cifar10.resolve(), "test"), ["--encoding", "raw"]),
        (224, (arguments.photos.resolve(),), ["--max-side", "256"]),
    ]
    print("| | images/s | " + " | ".join(f"to {name}" for name in PEERS) + " |")
    print("| --- |" + " --- |" * (1 + len(PEERS)))
    for size, where, packing in races:
        data = "#".join(map(str, where))
        rates = {name: peer(name, size, *where) for name in PEERS}
        for name, rate in rates.items():
            if rate:
                print(f"| {size} px: {name} | {rate:.0f} | | | |")
        print(f"| {size} px: Pillow, decoding alone | {peer('decode', size, *where):.0f} | | | |")
        with tempfile.TemporaryDirectory() as folder:
            pack = Path(folder) / "images.pack"
            program = ROOT / "target/release/protonce"
            command = [program, "data", "pack", data, "--out", pack, *packing]
            subprocess.run(command, check=True, capture_output=True)
            rows = [("tar", data, 1), ("tar, two threads", data, 2)]
            rows.append((f"packed, {' '.join(packing)}", pack, 1))
            for label, source, threads in rows:
                rate = ours(source, size, threads)
                ratios = [f"{rate / peer:.1f} ×" if peer else "" for peer in rates.values()]
                print(f"| {size} px: protonce, {label} | {rate:.0f} | {' | '.join(ratios)} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
