"""The console's files: the browser client is a copy, and colours are readable in both themes."""

import re
from itertools import product
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[1] / "src" / "holdfast" / "ingest" / "console" / "static"
CLIENT = Path(__file__).parents[3] / "libs" / "client-js"


@pytest.mark.parametrize("name", ["holdfast-live.js", "follow.js", "event-stream.js"])
def test_the_browser_client_is_that_of_the_library(name: str) -> None:
    assert (STATIC / name).read_bytes() == (CLIENT / name).read_bytes(), (
        f"copy libs/client-js/{name} into console/static"
    )


def colours(place: int) -> dict[str, str]:
    """Name → ``#rrggbb`` of the light (0) or the dark (1) theme."""
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", (STATIC / "console.css").read_text())
    return {name: values[place] for name, *values in pairs}


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa_on_every_ground_that_it_stands_on(theme: int) -> None:
    of = colours(theme)
    grounds = ("bg", "surface", "sunken", "hover")
    pairs = [*product(("text", "quiet", "accent"), grounds), ("bad", "surface"), ("accent", "accent-soft")]
    pairs += [(tone, f"{tone}-soft") for tone in ("good", "warn", "bad", "info")]

    for text, ground in pairs:
        assert contrast(of[text], of[ground]) >= 4.5, f"{text} on {ground}"
    for fill in ("accent-fill", "accent-fill-hover", "bad-fill", "bad-fill-hover"):
        assert contrast("#ffffff", of[fill]) >= 4.5, fill
    for ground in ("bg", "surface"):
        assert contrast(of["line-strong"], of[ground]) >= 3, f"an input's edge on {ground}"
