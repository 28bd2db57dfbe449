"""The loader as a training loop uses it."""

import http.server
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import threading
import time
import warnings
import zlib

import numpy as np
import protonce
import pytest
from conftest import LISTENING, REPOSITORY, picture, png, write_pictures

FIXTURES = REPOSITORY / "crates" / "protonce-images" / "tests" / "fixtures"


def loader(pictures, *arguments, **keywords):
    return protonce.Loader(pictures, *arguments, **{"output": "numpy", **keywords})


def copied(batches):
    return [([view.copy() for view in views], indices.copy()) for views, indices in batches]


def same(some, others):
    assert len(some) == len(others)
    for (views, indices), (other_views, other_indices) in zip(some, others):
        np.testing.assert_array_equal(indices, other_indices)
        assert len(views) == len(other_views)
        for view, other in zip(views, other_views):
            np.testing.assert_array_equal(view, other)


def test_batches_have_the_bits_of_the_rust_loader(pictures):
    cases = json.loads((FIXTURES / "loader_checksums.json").read_text())
    assert len(cases) >= 3
    for case in cases:
        settings = {name.replace("-", "_"): value for name, value in case["settings"].items()}
        batches = loader(
            pictures,
            batch_size=case["batch_size"],
            preset=case["preset"],
            shuffle=False,
            drop_last=False,
            seed=case["seed"],
            **settings,
        )
        batches.set_epoch(case["epoch"])
        found = [[zlib.crc32(view.tobytes()) for view in views] for views, _ in batches]
        assert found == case["checksums"]


def test_the_order_of_an_epoch_is_that_of_the_program(pictures):
    path = REPOSITORY / "crates" / "protonce-run" / "tests" / "fixtures" / "orders.json"
    cases = [case for case in json.loads(path.read_text()) if len(case["order"]) == 23]
    assert len(cases) >= 3
    for case in cases:
        batches = loader(pictures, 8, 5, drop_last=False, seed=case["seed"])
        batches.set_epoch(case["epoch"])
        found = [index for _, indices in batches for index in indices.tolist()]
        assert found == case["order"]


def test_what_comes_out_is_as_documented(pictures):
    batches = loader(pictures, 16, 5, local_views=2, local_size=8)
    assert len(batches) == 4
    seen = []
    for (query, key, *local), indices in batches:
        assert query.shape == key.shape == (5, 16, 16, 3)
        assert [view.shape for view in local] == [(5, 8, 8, 3)] * 2
        assert query.dtype == np.float32 and indices.dtype == np.int64
        assert query.flags.writeable and query.flags.c_contiguous
        assert not np.array_equal(query, key)
        query[:] = 0
        seen += indices.tolist()
    assert len(seen) == len(set(seen)) == 20
    assert batches.dataset.names[0] == "even/000.png"
    assert batches.dataset.classes == ["even", "odd"]
    assert batches.dataset.labels[[0, -1]].tolist() == [0, 1]
    assert batches.dataset.read(0) == png(picture(0))
    assert batches.settings["image_size"] == 16 and batches.settings["local_views"] == 2


def test_neither_threads_nor_output_change_a_bit(pictures):
    once = copied(loader(pictures, 16, 5, seed=7, threads=1))
    for threads in (2, 3):
        same(once, copied(loader(pictures, 16, 5, seed=7, threads=threads)))
    other = copied(loader(pictures, 16, 5, seed=8, threads=1))
    assert any((a[1] != b[1]).any() for a, b in zip(once, other))


def test_every_iteration_is_the_next_epoch_unless_it_is_said_which(pictures):
    batches = loader(pictures, 16, 5)
    first, second = copied(batches), copied(batches)
    assert batches.epoch == 2
    assert any((a[1] != b[1]).any() for a, b in zip(first, second))
    batches.set_epoch(1)
    same(second, copied(batches))
    batches.set_epoch(0)
    same(first, copied(batches))
    with pytest.raises(ValueError, match="expected 0 or more"):
        batches.set_epoch(-1)


def test_the_last_images_are_dropped_or_kept(pictures):
    sizes = lambda **keywords: [len(i) for _, i in loader(pictures, 8, **keywords)]
    assert sizes(batch_size=5) == [5] * 4
    assert sizes(batch_size=5, drop_last=False) == [5] * 4 + [3]
    # One image alone is no batch.
    assert sizes(batch_size=11, drop_last=False) == [11, 12]
    assert sizes(batch_size=11, drop_last=False, crops="centre") == [11, 11, 1]
    assert sizes(batch_size=100, drop_last=False) == [23]


def test_processes_share_every_image_once_in_as_many_batches(pictures):
    for world_size, batch_size, drop_last in [(2, 3, True), (3, 2, False), (4, 4, False), (5, 2, True)]:
        ranks = [
            loader(
                pictures, 8, batch_size, drop_last=drop_last, rank=rank, world_size=world_size, seed=3
            )
            for rank in range(world_size)
        ]
        batches = [copied(rank) for rank in ranks]
        assert {len(one) for one in batches} == {len(ranks[0])}
        seen = [index for one in batches for _, indices in one for index in indices.tolist()]
        assert len(seen) == len(set(seen))
        assert len(seen) == (23 // (world_size * batch_size) * world_size * batch_size if drop_last else 23)
        # Together they are the batches of one process.
        whole = copied(loader(pictures, 8, world_size * batch_size, drop_last=drop_last, seed=3))
        if len(whole) == len(batches[0]):
            for number, (views, indices) in enumerate(whole):
                parts = [one[number] for one in batches]
                np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), indices)
                together = np.concatenate([part[0][0] for part in parts])
                np.testing.assert_array_equal(together, views[0])


def test_uint8_is_what_is_normalised(pictures):
    settings = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    numbers = copied(loader(pictures, 16, 5, seed=1, **settings))
    pixels = copied(loader(pictures, 16, 5, seed=1, dtype="uint8", **settings))
    mean, std = (np.float32(settings[name]) for name in ("mean", "std"))
    for (views, _), (raw, _) in zip(numbers, pixels):
        for view, one in zip(views, raw):
            assert one.dtype == np.uint8
            expected = (one.astype(np.float32) / np.float32(255) - mean) / std
            np.testing.assert_array_equal(view, expected)


def test_centre_crops_are_one_view_in_the_order_of_the_images(pictures):
    batches = copied(loader(pictures, 16, 6, crops="centre", shuffle=False, drop_last=False))
    assert [index for _, indices in batches for index in indices.tolist()] == list(range(23))
    assert all(len(views) == 1 for views, _ in batches)


@pytest.mark.parametrize("number", [0, 5, 22])
def test_the_views_of_one_image_are_those_of_its_batch(pictures, number):
    settings = {"local_views": 1, "local_size": 8, "solarise_probability": 0.5}
    for preset in ("v1", "v2"):
        batches = loader(pictures, 16, 23, preset=preset, seed=5, **settings)
        batches.set_epoch(3)
        [(expected, indices)] = copied(batches)
        index = batches.dataset.names.index(f"{('even', 'odd')[number % 2]}/{number:03}.png")
        place = indices.tolist().index(index)
        made = dict(preset=preset, seed=5, epoch=3, index=index, **settings)
        path = pictures / batches.dataset.name(index)
        for image in (path, str(path), path.read_bytes(), picture(number)):
            found = protonce.views(image, 16, **made)
            for view, batch in zip(found, expected, strict=True):
                np.testing.assert_array_equal(view, batch[place])
    [crop] = protonce.views(picture(number), 16, crops="centre", dtype="uint8")
    assert crop.shape == (16, 16, 3) and crop.dtype == np.uint8


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"crop_scale": [0.0, 1.0]}, '"crop-scale" is'),
        ({"colour": 1}, 'unknown setting "colour": expected one of blur-probability'),
        ({"epochs": 3}, 'unknown setting "epochs"'),
        ({"preset": "v9"}, 'unknown preset "v9"'),
        ({"jitter": "much"}, "a setting has a value that it cannot have"),
        ({"jitter": None}, "a setting has a value that it cannot have"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 24}, "23 images make no batch of 24"),
        ({"rank": 2, "world_size": 2}, "rank 2 of world_size 2"),
        ({"rank": 2}, "both or neither"),
        ({"crops": "all"}, "crops is 'all': expected one of random, centre"),
        ({"dtype": "float16"}, "expected one of float32, uint8"),
        ({"output": "jax"}, "expected one of torch, numpy"),
        ({"pin_memory": True}, "pin_memory is for torch tensors"),
        ({"shuffle": "never"}, "never"),
    ],
)
def test_bad_arguments_get_one_sentence(pictures, keywords, sentence):
    with pytest.raises(ValueError, match=sentence.replace("[", r"\[")):
        loader(pictures, **{"batch_size": 4, **keywords})


def test_images_that_are_not_there(pictures, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist: expected a folder of images"):
        loader(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no images in"):
        loader(tmp_path)
    with pytest.raises(ValueError, match="expected an image|not an image"):
        protonce.views(b"no image")
    with pytest.raises(ValueError, match="expected uint8"):
        protonce.views(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match=r"expected \[height, width, 3\]"):
        protonce.views(np.zeros((4, 4), np.uint8))
    with pytest.raises(IndexError, match="image 23: expected less than 23"):
        protonce.Dataset(pictures).name(23)


def test_an_unreadable_image_is_left_out_with_one_warning(tmp_path):
    folder = write_pictures(tmp_path, 9)
    (folder / "even" / "002.png").write_bytes(b"torn")
    batches = loader(folder, 8, 9)
    with pytest.warns(protonce.UnreadableImageWarning, match="left out even/002.png: ") as seen:
        [(views, indices)] = copied(batches)
    assert len(seen) == 1 and len(views[0]) == len(indices) == 8
    assert list(batches.unreadable) == [1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(copied(batches)[0][1]) == 8


def test_a_loader_can_be_left_at_any_batch_and_by_an_exception(pictures):
    def threads():
        return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0

    before = threads()
    batches = loader(pictures, 64, 2, threads=3)
    for stop in range(4):
        for number, _ in enumerate(batches):
            if number == stop:
                break
    with pytest.raises(ZeroDivisionError):
        for _ in batches:
            1 / 0
    iterator = iter(batches)
    next(iterator)
    iterator.close()
    iter(batches)
    assert threads() == before
    assert len(copied(batches)) == 11


def test_arrays_outlive_their_batch_and_their_loader(pictures):
    expected = copied(loader(pictures, 16, 2, seed=4))
    batches = iter(loader(pictures, 16, 2, seed=4))
    kept = [batch for batch in batches]
    del batches
    same(expected, kept)


def test_two_iterations_at_once_and_from_several_threads(pictures):
    batches = loader(pictures, 16, 2, seed=4)
    expected = copied(batches)
    results = []

    def read():
        mine = loader(pictures, 16, 2, seed=4, threads=2)
        results.append(copied(mine))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(results) == 4
    for result in results:
        same(expected, result)
    batches.set_epoch(0)
    one = iter(batches)
    batches.set_epoch(0)
    other = iter(batches)
    pairs = [copied(pair) for pair in zip(one, other)]
    same([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def test_a_loader_survives_pickling(pictures):
    batches = loader(pictures, 16, 5, seed=4)
    copied(batches)
    again = pickle.loads(pickle.dumps(batches))
    assert again.epoch == 1
    same(copied(batches), copied(again))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_use_a_loader_but_not_its_parents_batches(pictures):
    batches = loader(pictures, 16, 2, seed=4, threads=3)
    expected = copied(batches)
    batches.set_epoch(0)
    running = iter(batches)
    held = next(running)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(30)
            try:
                next(running)
            except RuntimeError as error:
                assert "begin again" in str(error)
            del running, held
            batches.set_epoch(0)
            same(expected, copied(batches))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    # And the parent goes on.
    same(expected, [*copied([held]), *copied(running)])


class Ranges(http.server.BaseHTTPRequestHandler):
    """Hands out parts of the server's one file to whoever has its signature."""

    def do_GET(self):
        contents = self.server.contents
        if not self.path.endswith("?sig=secret"):
            return self.send_error(403)
        begin, end = self.headers["Range"].removeprefix("bytes=").split("-")
        part = contents[int(begin) : int(end) + 1]
        self.send_response(206)
        self.send_header("ETag", f'"{zlib.crc32(contents)}"')
        self.send_header("Content-Length", str(len(part)))
        last = int(begin) + len(part) - 1
        self.send_header("Content-Range", f"bytes {begin}-{last}/{len(contents)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_):
        pass


@pytest.fixture
def served(pictures, tmp_path):
    """A tar of the pictures, and its address on a web server."""
    with tarfile.open(tmp_path / "pictures.tar", "w") as archive:
        archive.add(pictures, ".")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as server:
        server.contents = (tmp_path / "pictures.tar").read_bytes()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        protonce.cache_objects(tmp_path / "cache", gigabytes=0.1)
        address = f"http://127.0.0.1:{server.server_port}/pictures.tar"
        yield tmp_path / "pictures.tar", address
        server.shutdown()


def test_images_on_a_web_server_are_those_of_the_file(served, tmp_path):
    file, address = served
    local, remote = protonce.Dataset(file), protonce.Dataset(f"{address}?sig=secret")
    assert remote.names == local.names and remote.classes == local.classes
    assert all(remote.read(i) == local.read(i) for i in range(len(local)))
    assert repr(remote) == f"Dataset({address!r}): 23 images"
    assert list((tmp_path / "cache").rglob("*"))
    both = [loader(data, batch_size=5, seed=3) for data in (file, f"{address}?sig=secret")]
    same(*(copied(batches) for batches in both))
    same(copied(both[0]), copied(pickle.loads(pickle.dumps(both[1]))))
    with pytest.raises(OSError, match="permission is denied"):
        protonce.Dataset(address)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads_from_a_web_server_too(served, tmp_path):
    file, address = served
    remote = protonce.Dataset(f"{address}?sig=secret")
    expected = [protonce.Dataset(file).read(i) for i in range(len(remote))]
    # Nothing that was fetched before the fork helps the child.
    for block in (tmp_path / "cache").rglob("*"):
        if block.is_file():
            block.unlink()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(30)
            if [remote.read(i) for i in range(len(remote))] == expected:
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert [remote.read(i) for i in range(len(remote))] == expected


def test_memory_stays_flat(pictures):
    if sys.platform != "linux":
        pytest.skip("/proc tells the memory of a process")

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    batches = loader(pictures, 32, 2)
    sizes = []
    # A thousand batches.
    for epoch in range(91):
        for views, _ in batches:
            views[0][0, 0, 0, 0] += 1
        if epoch in (20, 90):
            sizes.append(resident())
    # Batches that were kept would be 37 MB.
    assert sizes[1] - sizes[0] < 4_000_000, sizes


def test_ctrl_c_ends_a_wait_within_a_second(tmp_path):
    # Pictures so large that a batch takes many seconds.
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1500, 1500, 3), np.uint8)
    (tmp_path / "0.png").write_bytes(png(pixels))
    for number in range(1, 64):
        os.link(tmp_path / "0.png", tmp_path / f"{number}.png")
    script = LISTENING + (
        "import sys, protonce\n"
        f"batches = iter(protonce.Loader({str(tmp_path)!r}, 1024, 64, output='numpy', threads=1))\n"
        "print('waiting', flush=True)\n"
        "next(batches)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "waiting\n"
    time.sleep(0.5)
    assert child.poll() is None
    begin = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert "KeyboardInterrupt" in said and time.monotonic() - begin < 5
