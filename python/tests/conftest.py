"""Small pictures, made here, and a stand-in for the program."""

import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import protonce
import protonce.program
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def png(pixels):
    """A PNG of uint8 [height, width, 3]."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def picture(number):
    """The same pictures as in `tests/images/loader.rs` of protonce-images."""
    width, height = 20 + number, 30 - number % 9
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 9, y * 7, number * 31 + x * y], -1).astype(np.uint8)


def write_pictures(folder, count):
    for number in range(count):
        group = folder / ("odd" if number % 2 else "even")
        group.mkdir(parents=True, exist_ok=True)
        (group / f"{number:03}.png").write_bytes(png(picture(number)))
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of 23 pictures in two classes."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), 23)


# A script that begins with this is interrupted by Ctrl-C even if the tests run in the background, where
# a shell has it ignored.
LISTENING = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"

# Where a wheel was installed.
INSIDE = Path(protonce.program.__file__).parent / "bin" / "protonce"


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Makes a program out of the body of a Python script, in place of protonce."""
    if INSIDE.is_file():
        pytest.skip("the package has the program inside, which goes before any other")
    monkeypatch.setenv("LIBTORCH", str(tmp_path / "libtorch"))

    def make(body):
        path = tmp_path / "stand-in"
        beginning = f"#!{sys.executable}\nimport json, os, signal, sys, time\n"
        path.write_text(beginning + body)
        path.chmod(0o755)
        monkeypatch.setenv("PROTONCE", str(path))

    return make


@pytest.fixture(scope="session")
def real_program():
    """The program, where it was built."""
    if INSIDE.is_file():
        return INSIDE
    for folder in ("debug", "release"):
        path = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"), folder, "protonce")
        if path.is_file():
            return path
    pytest.skip("the program was not built")


# A training of seconds.
NARROW = dict(
    preset="small",
    arch="resnet18",
    base_channels=32,
    image_size=8,
    batch_size=4,
    epochs=2,
    clusters=[3, 5],
    warmup_epochs=1,
    queue=16,
    threads=1,
    loader_threads=1,
    precision="float32",
    # The same rate however many epochs there will be.
    schedule="step",
)


@pytest.fixture(scope="session")
def trained(real_program, pictures, tmp_path_factory):
    os.environ["PROTONCE"] = str(real_program)
    try:
        out = tmp_path_factory.mktemp("runs") / "run"
        yield protonce.pretrain(pictures, out, progress=False, **NARROW)
    finally:
        del os.environ["PROTONCE"]
