"""A small MCP server over a folder of documents, shipped for the demo and for trying things out without a network.

Run as `python -P -m mcp_bridge.documents --folder F` (default: the documents that ship with it); speaks MCP over
stdio. Its tools have the names and parameters of common web search servers, so that a workflow written for one of
those runs on local files. Reads only; nothing outside the folder can be read.
"""

import argparse
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import BaseModel

DEMO_FOLDER = Path(__file__).parent / "demo_documents"
_SUFFIXES = frozenset({".md", ".txt"})
_WORD = re.compile(r"[^\W_]+")
_MAX_FILE_BYTES = 1_048_576
_MAX_COUNT = 50
_SNIPPET_CHARACTERS = 240
_TITLE_WEIGHT = 3
_HINTS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, destructive_hint=False, open_world_hint=False)


class Hit(BaseModel):
    """One search result; `url` is what `read_document` takes."""

    title: str
    url: str
    snippet: str


@dataclass(frozen=True)
class Document:
    """One file: its first heading or its name as title, and its words."""

    path: str
    text: str

    @cached_property
    def title(self) -> str:
        """The first heading, or else the file's name."""
        first = next((line for line in self.text.splitlines() if line.strip()), "")
        return first.lstrip("# ").strip() if first.startswith("#") else Path(self.path).stem.replace("-", " ")

    @cached_property
    def words(self) -> Counter[str]:
        """How often each word occurs; those of the title count more."""
        counts = Counter(_words(self.text))
        for word in _words(self.title):
            counts[word] += _TITLE_WEIGHT
        return counts

    def snippet(self, wanted: set[str]) -> str:
        """The sentence with most of the wanted words."""
        body = " ".join(line for line in self.text.splitlines() if not line.startswith("#"))
        sentences = re.split(r"(?<=[.!?])\s+", body.strip())
        best = max(sentences, key=lambda sentence: len(wanted & set(_words(sentence))))
        return best if len(best) <= _SNIPPET_CHARACTERS else f"{best[: _SNIPPET_CHARACTERS - 1]}…"


@dataclass(frozen=True)
class Library:
    """All documents of a folder, read once: search by term frequency and inverse document frequency."""

    folder: Path
    documents: dict[str, Document] = field(init=False)

    def __post_init__(self) -> None:
        found = {document.path: document for document in _read_folder(self.folder.resolve())}
        object.__setattr__(self, "documents", found)

    def search(self, query: str, count: int) -> list[Hit]:
        """The best `count` documents, best first; ties in order of their paths."""
        wanted = set(_words(query))
        scored = [(self._score(document, wanted), path) for path, document in self.documents.items()]
        best = sorted(((score, path) for score, path in scored if score > 0), key=lambda pair: (-pair[0], pair[1]))
        chosen = [self.documents[path] for _, path in best[:count]]
        return [Hit(title=d.title, url=d.path, snippet=d.snippet(wanted)) for d in chosen]

    def _score(self, document: Document, wanted: set[str]) -> float:
        total = sum(document.words.values()) or 1
        return sum(document.words[word] / total * self._rarity(word) for word in wanted)

    def _rarity(self, word: str) -> float:
        holders = sum(1 for document in self.documents.values() if word in document.words)
        return math.log((len(self.documents) + 1) / holders) if holders else 0.0


def _words(text: str) -> list[str]:
    """Lower case; a plural counts as its singular, roughly."""
    return [w[:-1] if len(w) > 3 and w.endswith("s") else w for w in _WORD.findall(text.lower())]


def _read_folder(folder: Path) -> Iterator[Document]:
    """Files reached through a link to the outside are left out, and so are huge ones."""
    for file in sorted(folder.rglob("*")):
        inside = file.resolve().is_relative_to(folder)
        if inside and file.suffix in _SUFFIXES and file.is_file() and file.stat().st_size <= _MAX_FILE_BYTES:
            yield Document(file.relative_to(folder).as_posix(), file.read_text(encoding="utf-8", errors="replace"))


def build(folder: Path) -> MCPServer:
    """The server with its two tools."""
    library = Library(folder)
    server = MCPServer("documents", instructions="Searches and reads a fixed collection of documents.")

    @server.tool(annotations=_HINTS)
    def web_search(query: str, count: int = 5) -> list[Hit]:  # pyright: ignore[reportUnusedFunction]
        """Search the documents; gives title, url and the best matching sentence of each, best first."""
        return library.search(query, max(1, min(count, _MAX_COUNT)))

    @server.tool(annotations=_HINTS)
    def read_document(path: str) -> str:  # pyright: ignore[reportUnusedFunction]
        """Read one document in full; `path` is the `url` of a search result."""
        document = library.documents.get(path)  # only what was read at the start: no path can lead outside
        if document is None:
            raise ToolError(f"There is no document {path!r}; take the url of a search result.")
        return document.text

    return server


def main() -> None:
    """Serves over stdio until its stdin ends."""
    parser = argparse.ArgumentParser(prog="mcp_bridge.documents", description="MCP server over local documents")
    parser.add_argument("--folder", type=Path, default=DEMO_FOLDER, help="folder of .md and .txt files")
    folder: Path = parser.parse_args().folder
    if not folder.is_dir():
        parser.error(f"{folder} is no folder")
    build(folder).run("stdio")


if __name__ == "__main__":
    main()
