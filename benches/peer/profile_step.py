"""Where a step of the peer goes: the share of each kind of work in `pcl.py speed`'s step, without data loading.

    profile_step.py [--layers | --totals] [options of pcl.py speed, but for --data]

`--totals` stops before the profile: wall, user and system time, page faults and memory of a step, for comparing allocators
and settings. On a busy machine compare user + system time with `--threads 1`; it leaves out what other programs take.
"""

import random
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import pcl

KINDS = {
    "convolution forward": ("mkldnn_convolution", "_slow_conv2d_forward", "thnn_conv2d"),
    "convolution backward": ("convolution_backward", "mkldnn_convolution_backward", "_slow_conv2d_backward"),
    "batch norm forward": ("native_batch_norm",),
    "batch norm backward": ("native_batch_norm_backward",),
    "relu forward": ("clamp_min", "clamp_min_", "relu", "relu_"),
    "relu backward": ("threshold_backward",),
    "add (residual, gradient accumulation)": ("add", "add_"),
    "max pool": ("max_pool2d_with_indices", "max_pool2d_with_indices_backward"),
    "linear, losses": ("addmm", "mm", "log_softmax", "_log_softmax", "_log_softmax_backward_data"),
    "copies, casts": ("copy_",),
    "zeros": ("zero_", "fill_"),
    "allocation": ("empty", "empty_like", "empty_strided"),
    "optimiser, moving average": ("_fused_sgd_", "_foreach_lerp_", "lerp_"),
}


def main():
    layers, totals = "--layers" in sys.argv, "--totals" in sys.argv
    own = {"--layers", "--totals"}
    sys.argv = [sys.argv[0], "speed", "--data", "-"] + [word for word in sys.argv[1:] if word not in own]
    options = pcl.arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    model = pcl.PCL(options)
    sgd = pcl.optimiser(model, options)
    size = options.image_size
    views = [torch.randn(options.batch_size, 3, size, size) for _ in range(2)]
    index = torch.arange(options.batch_size)
    granularities = [
        (
            torch.randint(clusters, (options.batch_size,)),
            F.normalize(torch.randn(clusters, options.dim), dim=1),
            torch.full((clusters,), options.temperature),
        )
        for clusters in options.clusters
    ]

    def step():
        pcl.maximization(model, sgd, views, index, granularities, options)

    for _ in range(options.warmup_steps):
        step()
    wall, user, system, faults = [], [], [], []
    for _ in range(options.step_only):
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        step()
        after = resource.getrusage(resource.RUSAGE_SELF)
        wall.append(time.perf_counter() - began)
        user.append(after.ru_utime - before.ru_utime)
        system.append(after.ru_stime - before.ru_stime)
        faults.append(after.ru_minflt - before.ru_minflt)
    best = min(range(len(wall)), key=wall.__getitem__)
    print(
        f"wall {sorted(wall)[len(wall) // 2]:.2f} s (best {wall[best]:.2f}), user {min(user):.2f} s, "
        f"system {min(system):.2f} s, page faults {min(faults)}, "
        f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB",
        flush=True,
    )
    if totals:
        return

    with profile(activities=[ProfilerActivity.CPU], record_shapes=layers) as profiler:
        step()
    events = [event for event in profiler.key_averages() if event.device_type == DeviceType.CPU]
    total = sum(event.self_cpu_time_total for event in events)
    kind_of = {f"aten::{name}": kind for kind, names in KINDS.items() for name in names}
    spent = {}
    for event in events:
        kind = kind_of.get(event.key, "other")
        spent[kind] = spent.get(kind, 0) + event.self_cpu_time_total
    for kind, time_ in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"| {kind} | {time_ / 1e6:.3f} s | {100 * time_ / total:.1f} % |")
    if layers:
        print(profiler.key_averages(group_by_input_shape=True).table(sort_by="self_cpu_time_total", row_limit=40))


if __name__ == "__main__":
    main()
