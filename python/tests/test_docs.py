"""Every command and every block of Python in the documentation runs, or says why not and is checked.

A page's blocks run from top to bottom in a folder with small pictures as `photos/`, `photos.tar` and
`cifar10.tar` (`train/` and `test/`), and a finished `run` unless the page says that it begins without.
Commands have a folder of their own and Python has one, so that both may do the same. A training there
also reads a file of settings for a narrow network and one epoch, which the block's own flags overrule.

A hidden comment before a block says if it is different: `checked only: REASON`, or `runs with MODULE`.
"""

import ast
import functools
import importlib.util
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import protonce
import pytest
from conftest import INSIDE, NARROW, REPOSITORY
from protonce import _core, program

PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
BLOCK = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WITHOUT_RUN = "<!-- begins without a run -->"


class Block(NamedTuple):
    mark: str
    language: str
    text: str
    line: int

    def runs(self):
        if self.mark.startswith("runs with "):
            return importlib.util.find_spec(self.mark.removeprefix("runs with ")) is not None
        return not self.mark


def blocks(page):
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1] or "", found[2], found[3], text[: found.start(2)].count("\n") + 1)
        for found in BLOCK.finditer(text)
    ]


def says_something_to_run(page):
    return any(not block.mark.startswith("checked only") for block in blocks(page))


def name(page):
    return str(page.relative_to(REPOSITORY))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_marks_are_known_and_give_a_reason(page):
    # None is indented or left open.
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page))
    for block in blocks(page):
        assert block.language in ("sh", "python"), f"{page}:{block.line}"
        assert re.fullmatch(r"|checked only: \S.*|runs with \w+", block.mark), f"{page}:{block.line}"


# What runs.


@pytest.fixture(scope="session")
def place(real_program, pictures, tmp_path_factory):
    """A folder as a page finds it, and the program as it is called there."""
    if INSIDE.is_file():
        pytest.skip("the package has the program inside, which goes before any other")
    folder = tmp_path_factory.mktemp("docs")
    settings = {**NARROW, "base_channels": 16, "epochs": 1}
    # The page's own, if any.
    del settings["preset"]
    narrow = folder / "narrow.toml"
    narrow.write_text(
        "".join(f"{key.replace('_', '-')} = {json.dumps(value)}\n" for key, value in settings.items())
    )
    begin = folder / "begin"
    begin.mkdir()
    shutil.copytree(pictures, begin / "photos")
    with tarfile.open(begin / "photos.tar", "w") as archive:
        archive.add(pictures, ".")
    with tarfile.open(begin / "cifar10.tar", "w") as archive:
        for part in ("train", "test"):
            archive.add(pictures, part)
    subprocess.run(
        [real_program, "pretrain", "photos", "--out", "run", "--config", narrow, "--quiet"],
        cwd=begin, env=program.environment(), check=True,
    )
    called = folder / "bin" / "protonce"
    called.parent.mkdir()
    called.write_text(
        "#!/bin/sh\n"
        'case " $* " in\n'
        f"    *' --resume '*) exec {shlex.quote(str(real_program))} \"$@\" ;;\n"
        f"    ' pretrain '*) shift; exec {shlex.quote(str(real_program))} pretrain"
        f" --config {shlex.quote(str(narrow))} \"$@\" ;;\n"
        f"    *) exec {shlex.quote(str(real_program))} \"$@\" ;;\n"
        "esac\n"
    )
    called.chmod(0o755)
    return folder


# What a page says of its own accord is no error here.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("page", [*filter(says_something_to_run, PAGES)], ids=name)
def test_what_a_page_says_runs(page, place, tmp_path, monkeypatch):
    found = [block for block in blocks(page) if block.runs()]
    for folder in ("shell", "python"):
        shutil.copytree(place / "begin", tmp_path / folder)
        if WITHOUT_RUN in page.read_text(encoding="utf-8"):
            shutil.rmtree(tmp_path / folder / "run")
    called = place / "bin" / "protonce"
    monkeypatch.setenv("PROTONCE", str(called))
    monkeypatch.setenv("LIBTORCH", str(program.setup()))
    # Features are kept there.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    environment = program.environment()
    environment["PATH"] = f"{called.parent}{os.pathsep}{environment['PATH']}"
    monkeypatch.chdir(tmp_path / "python")

    def shell():
        for block in found:
            if block.language == "sh":
                done = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", block.text],
                    cwd=tmp_path / "shell", env=environment, capture_output=True, text=True,
                    stdin=subprocess.DEVNULL,
                )
                assert done.returncode == 0, f"{page}:{block.line}\n{done.stdout}{done.stderr}"

    # Both at the same time.
    with ThreadPoolExecutor(1) as beside:
        commands = beside.submit(shell)
        namespace = {"__name__": "page"}
        for block in found:
            if block.language == "python":
                exec(compile("\n" * block.line + block.text, str(page), "exec"), namespace)
        commands.result()


# What is checked of every block, whether it runs or not.


@pytest.fixture(scope="session")
def manual(real_program, tmp_path_factory):
    """The flags of every command of the program, by its words, as the manual pages have them."""
    folder = tmp_path_factory.mktemp("manual")
    subprocess.run([real_program, "man", "--out", folder], env=program.environment(), check=True)
    commands = {}
    for page in folder.glob("protonce-*.1"):
        flags = set(re.findall(r"--[a-z0-9-]+", page.read_text().replace(r"\-", "-")))
        commands[tuple(page.stem.split("-")[1:])] = flags
    return commands


def commands_of(text):
    """Each command of `protonce` or `make` in a block of a shell, and the words after it."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["cargo"]:
            # To Cargo it is the name of a package.
            continue
        for number, word in enumerate(words):
            # What was split off a `<(`, too.
            if word.rpartition("(")[2] in ("protonce", "make"):
                rest = words[number + 1 :]
                ends = [at for at, other in enumerate(rest) if other in ("|", "&&", "||", ";", "&")]
                yield word.rpartition("(")[2], [one.rstrip(")") for one in rest[: min(ends, default=None)]]


def check_command(manual, words):
    """Whether the program has the command and all its flags."""
    command = ()
    while words and any(known[: len(command) + 1] == (*command, words[0]) for known in manual):
        command, words = (*command, words[0]), words[1:]
    groups = {known[:-1] for known in manual}
    assert command and command not in groups, f"no command protonce {' '.join([*command, *words])}"
    for word in words:
        if word.startswith("--"):
            flag = word.partition("=")[0]
            assert flag in manual[command], f"no {flag} of protonce {' '.join(command)}"


def check_python(manual, text):
    """Whether what is called of protonce is there, with these keywords."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        module, *path = ast.unparse(node.func).split(".")
        if module != "protonce" or not all(part.isidentifier() for part in path):
            continue
        called = functools.reduce(getattr, path, protonce)
        known = set(inspect.signature(called).parameters)
        if path[0] in ("Loader", "views"):
            known |= set(json.loads(_core.view_settings("v2", "{}")))
        elif path[0] in ("embed", "evaluate", "pretrain", "report"):
            command = ("eval", *path[1:]) if path[0] == "evaluate" else tuple(path)
            known |= {flag.removeprefix("--") for flag in manual[command]}
        known = {one.replace("-", "_") for one in known}
        for keyword in node.keywords:
            # `**model.views` has none to be checked.
            assert keyword.arg is None or keyword.arg in known, (
                f"no {keyword.arg} of protonce.{'.'.join(path)}"
            )


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_flags_and_keywords_are_there(page, manual):
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for block in blocks(page):
        if block.language == "python":
            check_python(manual, block.text)
            continue
        subprocess.run(["bash", "-n", "-c", block.text], check=True)
        for command, words in commands_of(block.text):
            if command == "protonce":
                check_command(manual, words)
            else:
                assert words[0] in targets, f"no target {words[0]}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("protonce pretrian photos/", "no command protonce pretrian photos/"),
        ("protonce eval knnn --k 3", "no command protonce eval knnn --k 3"),
        ("protonce weights", "no command protonce weights"),
        ("protonce pretrain photos/ --out run --colour 3", "no --colour of protonce pretrain"),
        ("torchrun --no-python protonce pretrain \\\n  photos --ouut run", "no --ouut of protonce pretrain"),
        ("true && protonce weights export run --too=onnx | cat", "no --too of protonce weights export"),
    ],
)
def test_a_command_that_is_not_there_is_noticed(text, sentence, manual):
    [(_, words)] = commands_of(text)
    with pytest.raises(AssertionError) as raised:
        check_command(manual, words)
    assert str(raised.value).splitlines()[0] == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("protonce.pretrain('photos/', 'run', colour=1)", "no colour of protonce.pretrain"),
        ("protonce.Loader('photos.tar', colour=1)", "no colour of protonce.Loader"),
        ("x = protonce.evaluate.knn('run', kk=3)", "no kk of protonce.evaluate.knn"),
        ("protonce.KMeans(3, colour=2).fit(x)", "no colour of protonce.KMeans"),
    ],
)
def test_a_keyword_that_is_not_there_is_noticed(text, sentence, manual):
    with pytest.raises(AssertionError) as raised:
        check_python(manual, text)
    assert str(raised.value).splitlines()[0] == sentence


# The site.


def test_the_site_is_built_and_no_link_of_it_leads_nowhere(tmp_path):
    pytest.importorskip("properdocs")
    done = subprocess.run(
        [sys.executable, "-m", "properdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=REPOSITORY, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    front = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="pretrain/"' in front and 'src="gallery-summary.png"' in front
    # What is no page is in the repository.
    assert "/blob/main/benches/README.md" in front
    for page in tmp_path.glob("**/*.html"):
        html = page.read_text(encoding="utf-8")
        for link in re.findall(r"/protonce/blob/main/([^\"#]+)", html):
            assert (REPOSITORY / link).exists(), f"{page}: {link}"
        # It is read without a network, too.
        assert not re.search(r"(<script|<link|<img)[^>]*(src|href)=\"(https?:)?//", html), page
    contributing = (tmp_path / "contributing" / "index.html").read_text(encoding="utf-8")
    assert 'href="../architecture/"' in contributing
    # What is side by side is code, not text.
    assert front.count('<div class="pair">') == 1 and "language-python" in front
