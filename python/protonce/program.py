"""The program `protonce`: where it is, what it needs to run, and running it from Python.

Training runs in a process of its own, with a libtorch of its own. That keeps it apart from whatever
torch this interpreter has, and a crash there from everything here.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from json import loads
from pathlib import Path
from typing import Any

from . import libtorch

# How often, in seconds, what a running program has written is looked at.
_LOOK = 0.1


class ProgramError(RuntimeError):
    """The program has failed; the message is its own sentence."""


class UsageError(ProgramError, ValueError):
    """The program was given a setting or a value that does not exist."""


def setup() -> Path:
    """Fetches the libtorch that training needs, once: about 540 MB, into your cache folder.

    Nothing is fetched where ``LIBTORCH`` names one or torch 2.11 is installed. `pretrain` and the
    others call it when they need it.

    Returns
    -------
    Path
        The folder with ``lib/`` in it.

    Raises
    ------
    ProgramError
        When it cannot be downloaded.
    """
    home = _libtorch()
    if home is None:
        try:
            # What is being fetched, and where to, is said on stderr.
            home = libtorch.fetch(libtorch.cache_folder(), libtorch.suitable_variant()) / "torch"
        except SystemExit as sentence:
            raise ProgramError(str(sentence)) from None
    return home


def _libtorch() -> Path | None:
    """The first libtorch of the right version, if there is one."""
    named = os.environ.get("LIBTORCH")
    if named:
        return Path(named)
    version = libtorch.VERSION.rsplit(".", 1)[0] + "."
    for folder in map(Path, sys.path):
        torch = folder / "torch"
        if (torch / "lib").is_dir() and any(folder.glob(f"torch-{version}*.dist-info")):
            return torch
    cached = libtorch.home_of(libtorch.cache_folder(), libtorch.suitable_variant()) / "torch"
    return cached if cached.is_dir() else None


def program() -> Path:
    """The program: in this package, else what ``$PROTONCE`` names, else on the ``PATH``.

    Raises
    ------
    ProgramError
        When it is nowhere.
    """
    inside = Path(__file__).parent / "bin" / "protonce"
    if inside.is_file():
        return inside
    named = os.environ.get("PROTONCE")
    if named:
        if not Path(named).is_file():
            raise ProgramError(f"PROTONCE is {named}: expected the program; there is no such file")
        return Path(named)
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        found = shutil.which("protonce", path=folder)
        # The script of that name which runs this package would only come back here.
        if found and not _is_script(found):
            return Path(found)
    raise ProgramError(
        "the program protonce is not in this package, nor on the PATH: build it with "
        "`cargo build --release` and set PROTONCE to target/release/protonce"
    )


def _is_script(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"#!"


def environment() -> dict[str, str]:
    """The environment in which the program finds its libtorch, which is fetched first if need be."""
    home = setup()
    folders = [home / "lib", *sorted(home.parent.glob("nvidia/*/lib"))]
    variable = "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH"
    before = os.environ.get(variable)
    paths = [str(folder) for folder in folders] + ([before] if before else [])
    return {**os.environ, variable: os.pathsep.join(paths)}


def flags(settings: dict[str, Any]) -> list[str]:
    """Keyword arguments as the program's flags: ``batch_size=256`` is ``--batch-size=256``."""
    given = []
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            given.append(flag)
        elif value is not None and value is not False:
            given.append(f"{flag}={_text(value)}")
    return given


def _text(value: Any) -> str:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def run(
    arguments: list[str],
    *,
    json: bool = True,
    verbose: bool = False,
    look: Callable[[], object] | None = None,
) -> Any:
    """Runs the program, and gives what it prints: an object of JSON, or text.

    Ctrl-C, or a notebook's stop button, is handed on to it once; a second one makes it end without
    saving. Its warnings always reach stderr; with `verbose` so does all it says there. `look` is
    called several times a second.

    Raises
    ------
    UsageError
        When it says that it was used wrongly.
    ProgramError
        When it fails.
    KeyboardInterrupt
        When that was handed on and the program has ended.
    """
    command = [str(program()), *arguments, *(["--json"] if json else [])]
    # A notebook asks for colours, in which nothing would be found of what is looked for here.
    plain = {**environment(), "NO_COLOR": "1"}
    for variable in ("CLICOLOR_FORCE", "FORCE_COLOR"):
        plain.pop(variable, None)
    # In a session of its own a terminal's Ctrl-C does not reach it a second time.
    process = subprocess.Popen(
        command,
        env=plain,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    out, err = _Reader(process.stdout), _Reader(process.stderr, _show(verbose))
    interrupted: BaseException | None = None
    while True:
        try:
            # Both end when the program does.
            if not out.ended(_LOOK):
                if look is not None and interrupted is None:
                    look()
                continue
            process.wait()
            break
        except KeyboardInterrupt as interrupt:
            interrupted = interrupt
            process.send_signal(signal.SIGINT)
        except BaseException as error:
            # Whoever looks has failed: the program saves and ends too.
            interrupted = interrupted or error
            process.send_signal(signal.SIGINT)
    out.join()
    err.join()
    if interrupted is not None:
        raise interrupted
    if process.returncode != 0:
        failure = UsageError if process.returncode == 2 else ProgramError
        raise failure(_sentence(err.text(), process.returncode))
    return loads(out.text() or "{}") if json else out.text()


class _Reader(threading.Thread):
    """Reads a pipe to its end, so that it never fills up."""

    def __init__(self, pipe: Any, show: Callable[[str], object] | None = None):
        super().__init__(daemon=True)
        self._pipe, self._show = pipe, show
        self._lines: list[str] = []
        self.start()

    def run(self) -> None:
        for line in self._pipe:
            line = line.decode(errors="replace")
            self._lines.append(line)
            if self._show is not None:
                self._show(line)
        self._pipe.close()

    def ended(self, seconds: float) -> bool:
        self.join(seconds)
        return not self.is_alive()

    def text(self) -> str:
        return "".join(self._lines)


def _show(verbose: bool) -> Callable[[str], object]:
    def show(line: str) -> None:
        if verbose or line.startswith("warning:"):
            sys.stderr.write(line)
            sys.stderr.flush()

    return show


def _sentence(said: str, status: int) -> str:
    """What the program said that it has failed of."""
    lines = said.strip().splitlines()
    for number, line in reversed(list(enumerate(lines))):
        for beginning in ("protonce: ", "error: "):
            if line.startswith(beginning):
                sentence = [line[len(beginning) :]]
                # Some sentences go on in the next lines; a hint or the usage follows an empty one.
                for more in lines[number + 1 :]:
                    if not more.strip():
                        break
                    sentence.append(more.strip())
                return " ".join(sentence)
    if status < 0:
        return f"protonce was ended by {signal.Signals(-status).name}"
    return lines[-1] if lines else f"protonce ended with status {status}"
