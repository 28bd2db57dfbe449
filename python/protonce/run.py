"""Training without labels, and what a run leaves."""

from __future__ import annotations

import html
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _core, program

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


def pretrain(
    data: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: str | bool = "auto",
    **settings: Any,
) -> Run:
    """Pretrains an encoder on images without labels.

    Ctrl-C and a notebook's stop button save where the run is and raise KeyboardInterrupt;
    ``pretrain(None, out, resume=True)`` goes on from there, to the bits of an undisturbed run.

    Parameters
    ----------
    data : str, path or None
        What `Dataset` takes. None with `resume`, where it is known.
    out : path
        A new folder for everything the run leaves.
    resume : bool
        Go on with the run in `out`.
    progress : {"auto", "bar", "lines"} or False
        A bar of tqdm; the program's own lines; nothing but warnings. ``"auto"`` is a bar where
        tqdm is installed.
    **settings
        Every flag of ``protonce pretrain --help``, with ``_`` for ``-``: ``preset``, ``budget``,
        ``epochs``, ``batch_size``, ``image_size``, ``clusters=[100, 200]``, ``warm_start=True``.
        Without any, settings are chosen that suit the images, the machine and an hour.

    Returns
    -------
    Run

    Raises
    ------
    UsageError
        When a setting does not exist or is out of range. It is a ValueError.
    ProgramError
        When the run fails, with the program's sentence.
    KeyboardInterrupt
        After Ctrl-C, once the run is saved.

    Examples
    --------
    >>> run = protonce.pretrain("photos/", "run", budget="30m")
    >>> run.frame("epoch").plot("epoch", "loss")
    """
    kinds = ("auto", "bar", "lines", False)
    if progress not in kinds:
        raise ValueError(f"progress is {progress!r}: expected one of {', '.join(map(str, kinds))}")
    if progress == "auto":
        progress = "bar" if importlib.util.find_spec("tqdm") else "lines"
    arguments = ["pretrain"]
    if data is not None:
        arguments.append(os.fspath(data))
    given = {"out": out, "resume": resume, "quiet": progress != "lines", **settings}
    arguments += program.flags(given)
    run = Run(out, _exists=False)
    bar = _Bar(run) if progress == "bar" else None
    try:
        program.run(arguments, verbose=progress == "lines", look=bar.look if bar else None)
    finally:
        if bar:
            bar.close()
    return run


class Granularity(NamedTuple):
    """The prototypes of one granularity of an E-step."""

    assignment: NDArray[np.int64]
    """The prototype of each image, -1 for one that could not be read: [images]."""
    prototypes: NDArray[np.float32]
    """Normalised centroids: [prototypes, dim]."""
    concentration: NDArray[np.float32]
    """The temperature of each prototype: [prototypes]."""


class Run:
    """The folder of a run, finished or not.

    Parameters
    ----------
    folder : path
        What was the ``out`` of a training.

    Attributes
    ----------
    folder : Path
        The folder. A run can be given wherever weights are asked for.

    Raises
    ------
    ValueError
        When there is no run in the folder.
    """

    def __init__(self, folder: str | os.PathLike[str], *, _exists: bool = True):
        self.folder = Path(folder)
        if _exists and not (self.folder / "config.toml").is_file():
            raise ValueError(f"{self.folder} is no run: expected a folder with config.toml in it")

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting, under the name that `pretrain` has for it."""
        written = json.loads(_core.run_settings(str(self.folder)))
        return {name.replace("-", "_"): value for name, value in written.items()}

    @property
    def events(self) -> list[dict[str, Any]]:
        """Everything that happened, in order: what ``events.jsonl`` says.

        Each has the key ``event``: step, epoch, expectation, evaluation, floors, skipped, checkpoint or
        loader.
        """
        return list(_events(self._log()))

    def frame(self, event: str = "epoch") -> pd.DataFrame:
        """The events of one kind as a table, nested values as ``outer.inner``.

        Raises
        ------
        ImportError
            Without pandas.
        """
        import pandas as pd

        return pd.json_normalize([one for one in self.events if one["event"] == event])

    @property
    def prototypes(self) -> Prototypes:
        """What each E-step found: `Granularity` lists by the epoch that it began."""
        return Prototypes(self.folder / "prototypes")

    def report(self, **settings: Any) -> Report:
        """The page that shows what the run discovered; see `report`."""
        return report(self, **settings)

    def _log(self) -> Path:
        return self.folder / "events.jsonl"


class Prototypes(Mapping[int, list[Granularity]]):
    """Prototypes by epoch, from coarse to fine; read when they are asked for."""

    def __init__(self, folder: Path):
        self._folder = folder

    def _files(self) -> dict[int, Path]:
        found = {}
        for file in self._folder.glob("epoch-*.safetensors"):
            if match := re.fullmatch(r"epoch-(\d+)\.safetensors", file.name):
                found[int(match[1])] = file
        return dict(sorted(found.items()))

    def __getitem__(self, epoch: int) -> list[Granularity]:
        from . import tensors

        found, _ = tensors.read(self._files()[epoch])
        count = sum(name.startswith("prototypes.") for name in found)
        names = Granularity._fields
        return [Granularity(*(found[f"{name}.{m}"] for name in names)) for m in range(count)]

    def __iter__(self) -> Iterator[int]:
        return iter(self._files())

    def __len__(self) -> int:
        return len(self._files())

    def __repr__(self) -> str:
        return f"Prototypes of epochs {list(self)}"


class Report:
    """A page that shows what a run discovered; in a notebook it shows itself.

    Attributes
    ----------
    path : Path
        The file, which needs no network.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Report({str(self.path)!r})"

    def _repr_html_(self) -> str:
        # In a frame of its own: the page's style and scripts concern nothing around it.
        page = html.escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 85vh; border: 0"></iframe>'


def report(run: Run | str | os.PathLike[str], **settings: Any) -> Report:
    """Writes the page that shows what a run discovered and how it went.

    Parameters
    ----------
    run : Run or path
        A run, finished or not.
    **settings
        Flags of ``protonce report``: ``data``, ``out``, ``map``.

    Returns
    -------
    Report

    Raises
    ------
    ProgramError
        When the program fails, with its sentence.
    """
    summary = program.run(["report", os.fspath(run), "--quiet", *program.flags(settings)])
    return Report(summary["path"])


def _events(file: Path) -> Iterator[dict[str, Any]]:
    if not file.is_file():
        return
    with file.open("rb") as lines:
        for line in lines:
            # The last line may not be whole yet.
            if line.endswith(b"\n"):
                yield json.loads(line)


class _Bar:
    """A bar of tqdm that follows the events of a run."""

    def __init__(self, run: Run):
        from tqdm.auto import tqdm

        self._run, self._offset, self._epochs = run, 0, None
        self._last = b""
        # Events of before a resumption are no progress now, but where it begins.
        self._bar = tqdm(desc=run.folder.name, unit="step", file=sys.stderr, leave=True)
        self._known: dict[str, Any] = {}

    def look(self) -> None:
        try:
            with self._run._log().open("rb") as file:
                # A resumption drops what happened after the last checkpoint, and new lines, shorter or
                # longer ones, take its place.
                file.seek(self._offset - len(self._last))
                if file.read(len(self._last)) != self._last:
                    self._offset = file.seek(0)
                lines = file.readlines()
        except FileNotFoundError:
            return
        for line in lines:
            if line.endswith(b"\n"):
                self._offset += len(line)
                self._last = line
                self._follow(json.loads(line))

    def _follow(self, event: dict[str, Any]) -> None:
        if event["event"] == "step":
            if self._epochs is None:
                self._epochs = self._run.settings["epochs"]
            self._bar.total = self._epochs * event["steps"]
            self._bar.n = event["epoch"] * event["steps"] + event["step"]
            self._known["loss"] = event.get("loss")
            self._known["images/s"] = event.get("images_per_second")
        elif event["event"] == "evaluation":
            self._known["knn"] = max(event.get("knn", {}).values(), default=None)
        elif event["event"] == "expectation":
            self._known["prototypes"] = "/".join(
                str(granularity["clusters"]) for granularity in event.get("granularities", [])
            )
        else:
            return
        shown = {
            name: f"{value:.4g}" if isinstance(value, float) else value
            for name, value in self._known.items()
            if value is not None
        }
        self._bar.set_postfix(shown, refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        self.look()
        self._bar.close()
