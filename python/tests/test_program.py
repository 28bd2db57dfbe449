"""Running the program: with a stand-in for what it does, and itself where it was built."""

import json
import os
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import protonce
import protonce.run
import pytest
from conftest import LISTENING, NARROW, write_pictures
from protonce import program, tensors

ECHO = "print(json.dumps({'given': sys.argv[1:], 'knn': {'top1': 50.0}, 'path': 'page.html'}))\n"


def test_keywords_become_flags():
    given = {
        "batch_size": 256,
        "lr": 0.06,
        "warm_start": True,
        "resume": False,
        "init": None,
        "clusters": [100, 200],
        "crop_scale": np.array([0.25, 1.0]),
        "mean": (0.5, 0.5, 0.5),
        "data": os.path.join("a", "b"),
    }
    assert program.flags(given) == [
        "--batch-size=256",
        "--lr=0.06",
        "--warm-start",
        "--clusters=100,200",
        "--crop-scale=0.25,1.0",
        "--mean=0.5,0.5,0.5",
        f"--data={os.path.join('a', 'b')}",
    ]


def test_what_it_prints_comes_back(stand_in):
    stand_in(ECHO)
    assert program.run(["data", "check"])["given"] == ["data", "check", "--json"]
    assert protonce.evaluate.knn("run", "train", "test", k=20) == {"top1": 50.0}
    assert os.fspath(protonce.report("run")) == "page.html"


def test_the_table_of_all_evaluations_is_read(stand_in):
    pandas = pytest.importorskip("pandas")
    stand_in(
        "print('| VOC07 |  run | PCL v2 |')\nprint('| --- | ---: | ---: |')\n"
        "print('| SVM 4 | 60.50 ± 1.25 | 67.9 |')\nprint('| NMI | 0.5000 | |')\n"
        "print()\nprint('PCL v2: somewhere')\n"
    )
    table = protonce.evaluate.all("run", data="VOCdevkit", skip=["semi", "knn"])
    expected = pandas.DataFrame(
        {"run": [60.5, 0.5], "deviation": [1.25, np.nan], "PCL v2": [67.9, np.nan]},
        index=pandas.Index(["SVM 4", "NMI"], name="evaluation"),
    )
    pandas.testing.assert_frame_equal(table, expected)


@pytest.mark.parametrize(
    ("said", "status", "kind", "sentence"),
    [
        ("warning: a\nprotonce: x does not exist: check it\n", 1, protonce.ProgramError, "x does not exist: check it"),
        (
            "error: unexpected argument '--colour' found\n\n  tip: ...\n\nUsage: protonce\n",
            2,
            protonce.UsageError,
            "unexpected argument '--colour' found",
        ),
        (
            "error: the following required arguments were not provided:\n  --out <RUN>\n\nUsage\n",
            2,
            ValueError,
            "the following required arguments were not provided: --out <RUN>",
        ),
        ("something else\n", 1, RuntimeError, "something else"),
        ("", 3, RuntimeError, "protonce ended with status 3"),
    ],
)
def test_its_sentence_is_the_exception(stand_in, said, status, kind, sentence):
    stand_in(f"sys.stderr.write({said!r})\nsys.exit({status})\n")
    with pytest.raises(kind) as raised:
        program.run(["pretrain"])
    assert str(raised.value) == sentence


def test_a_program_that_is_killed_is_told_as_that(stand_in):
    stand_in("os.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(protonce.ProgramError, match="protonce was ended by SIGKILL"):
        program.run(["pretrain"])


def test_warnings_are_shown_and_the_rest_where_it_is_wanted(stand_in, capsys):
    stand_in("sys.stderr.write('epoch 1\\nwarning: a torn image\\n')\n")
    program.run([])
    assert capsys.readouterr().err == "warning: a torn image\n"
    program.run([], verbose=True)
    assert capsys.readouterr().err == "epoch 1\nwarning: a torn image\n"


def test_a_great_deal_of_output_does_not_block(stand_in):
    stand_in("sys.stderr.write('x' * 10_000_000)\nprint(json.dumps('y' * 10_000_000))\n")
    assert len(program.run([])) == 10_000_000


# Counts the signals that it gets, saves after the first, and writes how many there were.
PATIENT = """
count, out = 0, sys.argv[2]
def stop(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, stop)
print('{"outcome": "stopped"}', flush=True)
open(out + ".ready", "w").close()
begin = time.monotonic()
while count == 0 and time.monotonic() - begin < 30:
    time.sleep(0.01)
time.sleep(0.7)
with open(out, "w") as file:
    file.write(f"saved after {count}")
"""


def test_ctrl_c_is_handed_on_exactly_once_and_raised_after_the_save(stand_in, tmp_path):
    stand_in(PATIENT)
    out = tmp_path / "out"
    script = LISTENING + f"from protonce import program\nprogram.run(['--out', {str(out)!r}])\n"
    # In a group of its own, all of which gets the signal, as from a terminal.
    child = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (tmp_path / "out.ready").exists():
        time.sleep(0.01)
        assert child.poll() is None
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert "KeyboardInterrupt" in said and child.returncode != 0
    assert out.read_text() == "saved after 1"


def test_what_a_watcher_raises_ends_the_program_after_the_save(stand_in, tmp_path):
    stand_in(PATIENT)
    out = tmp_path / "out"

    def look():
        if (tmp_path / "out.ready").exists():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        program.run(["--out", str(out)], look=look)
    assert out.read_text() == "saved after 1"


def test_where_the_program_is_looked_for(stand_in, tmp_path, monkeypatch):
    monkeypatch.delenv("PROTONCE", raising=False)
    scripts, real = tmp_path / "scripts", tmp_path / "real"
    for folder, beginning in [(scripts, b"#!/usr/bin/python\n"), (real, b"\x7fELF")]:
        folder.mkdir()
        (folder / "protonce").write_bytes(beginning)
        (folder / "protonce").chmod(0o755)
    monkeypatch.setattr(program, "__file__", str(tmp_path / "elsewhere" / "program.py"))
    monkeypatch.setenv("PATH", f"{scripts}{os.pathsep}{real}")
    assert program.program() == real / "protonce"
    monkeypatch.setenv("PATH", str(scripts))
    with pytest.raises(protonce.ProgramError, match="is not in this package, nor on the PATH"):
        program.program()
    monkeypatch.setenv("PROTONCE", str(tmp_path / "nothing"))
    with pytest.raises(protonce.ProgramError, match="there is no such file"):
        program.program()
    inside = tmp_path / "elsewhere" / "bin"
    inside.mkdir(parents=True)
    (inside / "protonce").write_bytes(b"")
    assert program.program() == inside / "protonce"


@pytest.mark.skipif(sys.platform != "linux", reason="the variable has another name")
def test_libtorch_comes_from_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("LIBTORCH", str(tmp_path / "named"))
    assert protonce.setup() == tmp_path / "named"
    (tmp_path / "nvidia" / "runtime" / "lib").mkdir(parents=True)
    found = program.environment()["LD_LIBRARY_PATH"].split(os.pathsep)
    assert found[:2] == [str(tmp_path / "named" / "lib"), str(tmp_path / "nvidia" / "runtime" / "lib")]
    monkeypatch.delenv("LIBTORCH")
    packages = tmp_path / "packages"
    (packages / "torch" / "lib").mkdir(parents=True)
    (packages / "torch-2.15.0.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(packages)])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert program._libtorch() is None
    (packages / "torch-2.15.0.dist-info").rename(packages / "torch-2.11.0.dist-info")
    assert protonce.setup() == packages / "torch"


def test_the_console_script_becomes_the_program(stand_in):
    stand_in("print(sys.argv[1:], os.environ['LD_LIBRARY_PATH'].split(':')[0])\nsys.exit(7)\n")
    done = subprocess.run(
        [sys.executable, "-m", "protonce", "data", "check", "x"], capture_output=True, text=True
    )
    assert done.returncode == 7
    assert done.stdout == f"['data', 'check', 'x'] {os.environ['LIBTORCH']}/lib\n"
    done = subprocess.run([sys.executable, "-m", "protonce", "setup"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{os.environ['LIBTORCH']}\n")


def test_importing_it_loads_neither_numpy_nor_torch_nor_scikit_learn(pictures):
    script = (
        "import sys, protonce\n"
        "assert 'numpy' not in sys.modules\n"
        f"for views, indices in protonce.Loader({str(pictures)!r}, 8, 4, output='numpy'): pass\n"
        "protonce.KMeans(2, random_state=0).fit(views[0].reshape(len(indices), -1)).predict\n"
        "print(*sorted({'torch', 'sklearn', 'scipy', 'pandas', 'tqdm'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_every_public_name_is_there_and_says_what_it_is():
    for name in protonce.__all__:
        if name != "__version__":
            assert getattr(protonce, name).__doc__, name
    assert "Loader" in dir(protonce)
    with pytest.raises(AttributeError):
        protonce.nothing


def safetensors(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_safetensors_are_read_with_numpy_alone(tmp_path):
    def entry(kind, shape, *offsets):
        return {"dtype": kind, "shape": shape, "data_offsets": offsets}

    header = {
        "__metadata__": {"a": "b"},
        "m": entry("F32", [2, 3], 0, 24),
        "n": entry("I64", [2], 24, 40),
        "none": entry("U8", [0], 40, 40),
        "one": entry("F16", [], 40, 42),
    }
    numbers = [np.arange(6, dtype="<f4"), np.array([-1, 7], "<i8"), np.array(0.5, "<f2")]
    data = b"".join(part.tobytes() for part in numbers)
    found, metadata = tensors.read(safetensors(tmp_path / "some", header, data))
    assert metadata == {"a": "b"}
    np.testing.assert_array_equal(found["m"], numbers[0].reshape(2, 3))
    assert found["n"].tolist() == [-1, 7] and found["none"].shape == (0,) and found["one"] == 0.5
    assert not found["m"].flags.writeable
    empty, _ = tensors.read(safetensors(tmp_path / "empty", {"none": entry("F32", [0, 4], 0, 0)}))
    assert empty["none"].shape == (0, 4)
    for wrong in [
        entry("F32", [2, 3], 0, 20),
        entry("F32", [2, 3], 24, 48),
        entry("F32", [2, 3], -24, 0),
        entry("F99", [2, 3], 0, 24),
        entry("F32", ["2", 3], 0, 24),
        {"dtype": "F32"},
        7,
    ]:
        with pytest.raises(ValueError, match="tensor 'm' cannot be read"):
            tensors.read(safetensors(tmp_path / "wrong", {"m": wrong}, data))


# With the program itself.

def test_a_run_is_there_to_be_looked_at(trained, pictures):
    assert trained.settings["batch_size"] == 4
    kinds = {event["event"] for event in trained.events}
    assert {"epoch", "expectation", "checkpoint"} <= kinds
    assert [event["epoch"] for event in trained.events if event["event"] == "epoch"] == [0, 1]
    newest = trained.prototypes[max(trained.prototypes)]
    assert [granularity.prototypes.shape for granularity in newest] == [(3, 128), (5, 128)]
    assert newest[0].assignment.shape == (23,) and newest[1].concentration.shape == (5,)
    page = trained.report()
    assert page.path.is_file() and page._repr_html_().startswith("<iframe srcdoc=")
    with pytest.raises(ValueError, match="is no run"):
        protonce.Run(pictures)


def test_features_are_those_of_the_loaded_network(trained, pictures, tmp_path):
    found = protonce.embed(trained, pictures)
    assert found.rows.shape == (23, 256) and found.names[0] == "even/000.png"
    assert found.labels.tolist() == [0] * 12 + [1] * 11 and np.asarray(found).shape == (23, 256)
    kept = protonce.embed(trained, pictures, out=tmp_path / "e.safetensors", output="embeddings")
    assert kept.rows.shape == (23, 128)
    with pytest.raises(ValueError, match="expected a file that ends in .safetensors"):
        protonce.embed(trained, pictures, out=tmp_path / "e.npy")
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    model = protonce.load(trained, head=True)
    crops = protonce.Loader(
        pictures, batch_size=23, crops="centre", shuffle=False, **model.views
    )
    with torch.no_grad():
        [([images], _)] = crops
        embedded = torch.nn.functional.normalize(model(images)).numpy()
        features = protonce.load(trained)(images).numpy()
    np.testing.assert_allclose(embedded, kept.rows, atol=2e-4)
    # After a few steps they are in the thousands.
    scale = np.abs(found.rows).max()
    np.testing.assert_allclose(features / scale, found.rows / scale, rtol=0, atol=1e-6)


def test_evaluations_come_as_numbers(trained, pictures):
    found = protonce.evaluate.knn(trained, pictures, pictures, no_cache=True)
    assert [one["k"] for one in found] == [20, 200] and 0 <= found[0]["top1"] <= 100
    pandas = pytest.importorskip("pandas")
    table = protonce.evaluate.all(
        trained, pictures, pictures, no_cache=True, skip=["semi", "svm", "linear"]
    )
    assert isinstance(table, pandas.DataFrame) and list(table.columns) == ["run", "deviation"]
    assert table["run"].iloc[0] == pytest.approx(found[0]["top1"], abs=0.01)
    assert len(trained.frame("epoch")) == 2


def test_a_wrong_setting_is_a_value_error(trained, pictures, tmp_path):
    with pytest.raises(ValueError, match="colour"):
        protonce.pretrain(pictures, tmp_path / "run", progress=False, colour=1)
    with pytest.raises(protonce.ProgramError, match="does not exist"):
        protonce.pretrain(tmp_path / "none", tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="progress is 'loud'"):
        protonce.pretrain(pictures, tmp_path / "run", progress="loud")


def test_its_sentence_is_found_where_colours_are_asked_for(trained, pictures, tmp_path, monkeypatch):
    for variable in ("CLICOLOR_FORCE", "FORCE_COLOR"):
        monkeypatch.setenv(variable, "1")
    for settings, sentence in [
        ({"colour": 1}, "^unexpected argument '--colour' found$"),
        ({"epochs": "many"}, "^invalid value 'many' for '--epochs <N>'"),
        ({"epochs": 1, "budget": "1m"}, "^the argument '--epochs <N>' cannot be used with"),
    ]:
        with pytest.raises(protonce.UsageError, match=sentence):
            protonce.pretrain(pictures, tmp_path / "run", progress=False, **settings)


def interrupted_script(code, at_work):
    """Runs code and sends it Ctrl-C once it is at work. Gives what it said."""
    command = [sys.executable, "-c", LISTENING + code]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not at_work():
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    return child.communicate(timeout=120)[1]


def interrupted_notebook(code, at_work):
    """Runs code as a notebook's cell and presses the stop button once it is at work. Gives the exception."""
    pytest.importorskip("ipykernel")
    manager = pytest.importorskip("jupyter_client").KernelManager()
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        asked = client.execute(code)
        while not at_work():
            assert manager.is_alive()
            time.sleep(0.02)
        manager.interrupt_kernel()
        reply = {"parent_header": {}}
        while reply["parent_header"].get("msg_id") != asked:
            reply = client.get_shell_msg(timeout=120)
        # The kernel itself goes on.
        assert client.execute("1 + 1", reply=True, timeout=60)["content"]["status"] == "ok"
        return reply["content"].get("ename", "nothing")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


# IPython and its kernel warn of their own ways of doing things.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("interrupted", [interrupted_script, interrupted_notebook])
def test_an_interrupted_run_goes_on_to_the_same_bits(interrupted, trained, pictures, tmp_path):
    out = tmp_path / "run"
    settings = {**NARROW, "epochs": 40, "log_every": 1}
    code = (
        "import protonce\n"
        f"protonce.pretrain({str(pictures)!r}, {str(out)!r}, progress=False, **{settings!r})\n"
    )
    log = out / "events.jsonl"
    said = interrupted(code, lambda: log.is_file() and '"step"' in log.read_text())
    assert "KeyboardInterrupt" in said
    stopped = protonce.Run(out).events[-1]
    assert stopped["event"] == "checkpoint" and stopped["epoch"] < 40
    # To its next epoch, as a run that nobody has disturbed.
    epochs = max(stopped["epoch"] + 1, 2)
    protonce.pretrain(None, out, resume=True, progress=False, epochs=epochs)
    undisturbed = trained
    if epochs > 2:
        settings = {**NARROW, "epochs": epochs}
        undisturbed = protonce.pretrain(pictures, tmp_path / "other", progress=False, **settings)
    name = f"checkpoints/epoch-{epochs:04}/encoder.safetensors"
    assert (out / name).read_bytes() == (undisturbed.folder / name).read_bytes()


def test_a_bar_follows_the_events(trained, pictures, tmp_path, capsys):
    pytest.importorskip("tqdm")
    protonce.pretrain(pictures, tmp_path / "run", progress="bar", log_every=1, **NARROW)
    said = capsys.readouterr().err
    assert "12/12" in said and "loss=" in said
    again = protonce.Run(write_pictures(tmp_path / "run", 0))
    assert again.settings == {**trained.settings, "log_every": 1}


@pytest.mark.parametrize("replaced", [1, 1.5, 1.23456789])
def test_a_bar_follows_a_log_of_which_a_resumption_has_replaced_the_end(replaced, tmp_path):
    pytest.importorskip("tqdm")

    def write(*values):
        events = [{"event": "evaluation", "knn": {"20": value}} for value in values]
        (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))

    bar = protonce.run._Bar(protonce.Run(tmp_path, _exists=False))
    write(10, 1.25)
    bar.look()
    assert bar._known["knn"] == 1.25
    write(10, replaced, 30)
    bar.look()
    assert bar._known["knn"] == 30
    write(10)
    bar.look()
    assert bar._known["knn"] == 10
    bar.close()
