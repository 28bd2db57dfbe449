#!/usr/bin/env python3
"""Reads a run's event files with TensorBoard's own reader and says what is in them.

    pip install tensorboard
    python3 scripts/check_tensorboard.py RUN

Fails when a tag is missing, a checksum is wrong, a step appears twice, or an image is none.
"""

import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = Path(sys.argv[1])
events = EventAccumulator(
    str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "histograms": 0}
)
events.Reload()
tags = events.Tags()

log = (run / "events.jsonl").read_text()
clusters = log.count('"expectation"') > 0
wanted = {"scalars": ["train/loss", "train/instance_loss", "train/instance_accuracy", "train/learning_rate",
                      "epoch/loss", "speed/images_per_second", "speed/waiting_percent"],
          "histograms": [], "images": []}
if clusters:
    wanted["scalars"] += ["train/prototype_loss", "train/prototype_accuracy",
                          "prototypes_0/objective", "prototypes_0/largest", "prototypes_0/empty"]
    wanted["histograms"] += ["prototypes_0/sizes", "prototypes_0/concentrations"]
    wanted["images"] += ["prototypes_0/largest_and_nearest"]
if '"evaluation"' in log:
    wanted["scalars"] += ["evaluation/knn_20", "evaluation/chance"]

problems = [f"no {kind} {tag}" for kind, names in wanted.items() for tag in names if tag not in tags[kind]]
for kind, read in [("scalars", events.Scalars), ("histograms", events.Histograms), ("images", events.Images)]:
    for tag in tags[kind]:
        entries = read(tag)
        steps = [entry.step for entry in entries]
        if len(set(steps)) < len(steps) or steps != sorted(steps):
            problems.append(f"steps of {tag}: {steps}")
        if kind == "images" and not all(e.encoded_image_string.startswith(b"\x89PNG") for e in entries):
            problems.append(f"{tag} is no PNG")
        if kind == "histograms" and not all(sum(e.histogram_value.bucket) == e.histogram_value.num for e in entries):
            problems.append(f"{tag} does not count everything")
        last = f", last {entries[-1].value:.4g}" if kind == "scalars" else ""
        print(f"{kind[:-1]:10} {tag:36} {len(entries):5} up to step {steps[-1]}{last}")
if problems:
    sys.exit("\n".join(problems))
