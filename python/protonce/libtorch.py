#!/usr/bin/env python3
"""Finds or fetches libtorch; as a program, also points the repository's `.libtorch` at it.

Knows nothing of the rest of this package, so that it runs before anything is built. libtorch is the C++ half of PyTorch. The wheel on PyPI carries it, headers included, so an
ordinary `pip download` is all the set-up there is. One copy per version is kept in the user's
cache folder and shared by every clone.

An existing libtorch wins: set LIBTORCH (a folder with include/ and lib/) or
LIBTORCH_USE_PYTORCH=1 (the PyTorch of the active Python) and nothing is fetched.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "2.11.0"
# Of a source tree; only the program has a use for it.
REPOSITORY = Path(__file__).resolve().parents[2]
# All that libtorch_cpu.so of the CUDA wheel itself needs from NVIDIA.
CPU_NEEDS = ["nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"]
# Headers that NCCL's half of libtorch includes, and that PyTorch does not ask for.
GPU_HEADERS = ["nvidia-cuda-crt==13.0.88", "nvidia-cuda-cccl==13.0.85"]
# Megabytes of GPU kernels that a machine without a GPU never opens.
GPU_ONLY = ("libtorch_cuda", "libc10_cuda", "libtorch_nvshmem")
# Nothing here speaks Python.
LEFT_OUT = ("libtorch_python",)


def wheel_platforms() -> list[str]:
    """The wheel tags pip should look for: this machine's, whatever Python is installed."""
    machine = platform.machine().lower()
    if sys.platform == "darwin":
        return [f"macosx_{major}_0_arm64" for major in (11, 12, 13, 14)]
    if sys.platform.startswith("linux") and machine in ("x86_64", "aarch64"):
        return [f"manylinux_2_{minor}_{machine}" for minor in range(28, 16, -1)] + [
            f"manylinux2014_{machine}"
        ]
    sys.exit(
        f"libtorch: no ready-made libtorch {VERSION} for {sys.platform} {machine}; "
        "build or download one and set LIBTORCH to its folder"
    )


def has_nvidia_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def pip_download(folder: Path, packages: list[str], with_dependencies: bool) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:",
               "--disable-pip-version-check", "--no-cache-dir",
               "--python-version", "3.12", "--implementation", "cp", "--dest", str(folder)]
    for tag in wheel_platforms():
        command += ["--platform", tag]
    if not with_dependencies:
        command.append("--no-deps")
    try:
        subprocess.run(command + packages, check=True)
    except (subprocess.CalledProcessError, OSError):
        sys.exit(
            "libtorch: pip could not download " + ", ".join(packages) + "; check that "
            "`python3 -m pip` works and reaches a package index, or set LIBTORCH"
        )


def unpack(wheels: Path, target: Path, variant: str) -> None:
    """Unpacks headers and libraries of every wheel; Python sources stay behind."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                name = member.filename
                file = Path(name).name
                wanted = name.startswith(("torch/lib/", "torch/include/")) or (
                    name.startswith("nvidia/")
                    and ("/lib/" in name or variant == "cuda" and "/include/" in name)
                )
                if not wanted or not file or file.startswith(LEFT_OUT) or file.endswith(".a"):
                    continue
                if variant == "cpu" and file.startswith(GPU_ONLY):
                    continue
                archive.extract(member, target)
    (target / "torch" / "build-version").write_text(VERSION + "\n")


def cache_folder() -> Path:
    """Where copies are kept: a folder per version and variant."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "protonce"


def suitable_variant() -> str:
    """`cuda` where there is a driver of NVIDIA, else `cpu`."""
    return "cuda" if has_nvidia_driver() else "cpu"


def home_of(cache: Path, variant: str) -> Path:
    return cache / f"libtorch-{VERSION}-{variant}"


def fetch(cache: Path, variant: str) -> Path:
    home = home_of(cache, variant)
    if home.is_dir():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    print(f"libtorch: fetching {VERSION} ({variant}) into {home} …", file=sys.stderr, flush=True)
    # Unpacked beside its final place and renamed, so that a broken download never looks whole.
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        wheels, target = Path(scratch) / "wheels", Path(scratch) / "libtorch"
        wheels.mkdir()
        if variant == "cuda":
            pip_download(wheels, [f"torch=={VERSION}"], with_dependencies=True)
            pip_download(wheels, GPU_HEADERS, with_dependencies=False)
        else:
            needs = CPU_NEEDS if sys.platform.startswith("linux") else []
            pip_download(wheels, [f"torch=={VERSION}"] + needs, with_dependencies=False)
        unpack(wheels, target, variant)
        try:
            target.rename(home)
        except OSError:
            if not home.is_dir():  # another clone was quicker: theirs is as good
                raise
    return home


def point_at(link: Path, target: Path) -> None:
    if link.is_symlink() and Path(os.readlink(link)) == target:
        return
    fresh = link.with_name(link.name + ".new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--link", type=Path, default=REPOSITORY / ".libtorch")
    parser.add_argument("--variant", choices=["auto", "cpu", "cuda"], default="auto")
    arguments = parser.parse_args()
    for variable in ("LIBTORCH_USE_PYTORCH", "LIBTORCH"):
        if os.environ.get(variable):
            print(f"libtorch: using {variable}={os.environ[variable]}", file=sys.stderr)
            return
    variant = arguments.variant
    if variant == "auto":
        variant = suitable_variant()
    point_at(arguments.link, fetch(cache_folder(), variant) / "torch")


if __name__ == "__main__":
    main()
