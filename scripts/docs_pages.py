"""Makes pages of the site out of the repository's own files, so that no text is written twice.

A hook of ProperDocs: what enters are the files of docs/, what leaves are these, README.md and its like,
with links that lead to a page where there is one and to the repository otherwise.
"""

import posixpath
import re

from properdocs.structure.files import File

# Files outside docs/ and their pages.
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples.md",
}
LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")


def on_files(files, config):
    for source, page in PAGES.items():
        with open(source, encoding="utf-8") as file:
            files.append(File.generated(config, page, content=file.read()))
    return files


def on_page_markdown(markdown, page, config, files):
    origins = {made: source for source, made in PAGES.items()}
    path = page.file.src_uri
    origin = origins.get(path, f"docs/{path}")
    pages = {**PAGES, **{f"docs/{uri}": uri for uri in files.src_uris if uri not in origins}}

    def place(link):
        begin, target, anchor, end = link.groups(default="")
        if "://" in target or (origin not in PAGES and target in files.src_uris):
            return link[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        if target in pages:
            return begin + pages[target] + anchor + end
        return f"{begin}{config.repo_url}/blob/main/{target}{anchor}{end}"

    return LINK.sub(place, markdown)
