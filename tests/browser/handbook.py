"""What the operator's handbook shows: its pictures, the pages they are of, and the words that it quotes."""

import re
from collections.abc import Callable
from pathlib import Path

from bench.addresses import Landmarks

__all__ = ["IMAGES", "MOST_BYTES", "SHOTS", "pictures", "quoted"]

DOCS = Path(__file__).parents[2] / "docs"

IMAGES = DOCS / "images"

MOST_BYTES = 150_000
"""Of a picture: the handbook is read on phones too."""

SHOTS: dict[str, Callable[[Landmarks], str]] = {
    "overview": lambda _: "",
    "workers": lambda _: "workers",  # early, while the nodes that were made have spoken just now
    "dead-letters": lambda _: "dead-letters",
    "event": lambda marks: f"events/{marks.dead}",
    "new-replay": lambda _: "replays/new?state=dead&handler=book-order&error_type=KeyError&fingerprint=f1a7c2d9",
    "replays": lambda _: "replays",
    "new-discard": lambda _: "discards/new?state=dead&handler=book-order&error_type=KeyError&fingerprint=f1a7c2d9",
    "waiting": lambda marks: f"events/{marks.failed}",
    "keys": lambda _: "keys",
    "handlers": lambda _: "handlers?window=hour",
    "schedules": lambda _: "schedules",
    "limits": lambda _: "handlers?window=hour#declared",
    "retention": lambda _: "retention",
    "events": lambda marks: f"events?request_id={marks.request_id}",
    "audit": lambda _: "audit?action=start_replay",
}
"""A picture's name → the page's address below the console's, over a history that is lived in."""

_PICTURE = re.compile(r"!\[[^\]]*\]\(images/([\w-]+)\.png\)")

_QUOTED = re.compile(r"\*\*(.+?)\*\*", re.DOTALL)


def pictures() -> list[str]:
    """The names of the pictures that the handbook shows, in their order."""
    return _PICTURE.findall(_text())


def quoted(picture: str) -> list[str]:
    """The words in bold of the section that has this picture: they are to be on the page."""
    [section] = [each for each in re.split(r"^## ", _text(), flags=re.MULTILINE) if picture in _PICTURE.findall(each)]
    return [" ".join(words.split()) for words in _QUOTED.findall(section)]


def _text() -> str:
    return (DOCS / "handbook.md").read_text()
