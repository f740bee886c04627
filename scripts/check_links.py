"""Checks the relative links of every tracked Markdown file, and the table of crates.

    python3 scripts/check_links.py

A link must lead to a file, or a folder of files, that git tracks, and what follows `#` to a heading of that file. Code is passed over.
A tracked picture must be shown by a document. The table of docs/architecture.md must have every crate, with its dependencies on the others. Needs Python 3.11 and git, and nothing else. Exit status: 0 all is well, 1 it is not, 2
there is no checkout.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
# `[text](target)` and `![text](target)`; the text may break across lines.
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
CRATES = "docs/architecture.md"
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)


def tracked_files() -> set[str]:
    """All files that git tracks, relative to the root."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode != 0:
        sys.exit(2)
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a Markdown text."""
    found: dict[str, int] = {}
    result = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        count = found.get(anchor, 0)
        found[anchor] = count + 1
        result.add(anchor if count == 0 else f"{anchor}-{count}")
    return result


def links(name: str) -> Iterator[tuple[int, str, str]]:
    """The relative links of one file: line, path from the root, and anchor."""
    text = FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), (ROOT / name).read_text(encoding="utf-8"))
    text = CODE.sub(lambda code: " " * len(code[0]), text)
    for link in LINK.finditer(text):
        target = unquote(link[1])
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        place = normpath(PurePosixPath(name).parent / path) if path else name
        yield text.count("\n", 0, link.start()) + 1, place, anchor


def crates_that_differ(tracked: set[str]) -> Iterator[str]:
    """What the table of crates states otherwise than the manifests."""
    table = re.compile(r"^\| `((?:crates/)?[\w-]+)` \|.*\| ([^|]*) \|$", re.MULTILINE)
    stated = {crate: names for crate, names in table.findall((ROOT / CRATES).read_text(encoding="utf-8"))}
    for manifest in sorted(name for name in tracked if re.fullmatch(r"(crates/[\w-]+|benches)/Cargo\.toml", name)):
        crate = str(PurePosixPath(manifest).parent)
        parsed = tomllib.loads((ROOT / manifest).read_text(encoding="utf-8"))
        # Benches have no library: what they use are dependencies of development.
        used = parsed.get("dev-dependencies" if crate == "benches" else "dependencies", {})
        own = [name.removeprefix("infermark-") for name in used if name.startswith("infermark")]
        expected = ", ".join(sorted(own)) or "none"
        if stated.get(crate) != expected:
            yield f"{CRATES}: {crate} depends on: {expected}"


def main() -> int:
    """Checks all files and prints what is wrong."""
    tracked = tracked_files()
    places = tracked | {str(folder) for name in tracked for folder in PurePosixPath(name).parents}
    documents = sorted(name for name in tracked if name.endswith(".md"))
    wrong, shown = [], set()
    for name in documents:
        for line, place, anchor in links(name):
            shown.add(place)
            if place not in places:
                wrong.append(f"{name}:{line}: {place} is not tracked")
            elif anchor and place.endswith(".md") and anchor not in anchors((ROOT / place).read_text(encoding="utf-8")):
                wrong.append(f"{name}:{line}: {place} has no heading #{anchor}")
    pictures = {name for name in tracked if PurePosixPath(name).suffix in {".png", ".svg"}}
    wrong += [f"{name}: no document shows this picture" for name in sorted(pictures - shown)]
    wrong += crates_that_differ(tracked)
    print("\n".join(wrong) if wrong else f"{len(documents)} documents, all relative links lead somewhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
