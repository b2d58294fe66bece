"""What is written on what, in light and dark, by the colours of the pages themselves: WCAG 2.2, 1.4.3 and 1.4.11."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from snaptool import pages
from snaptool.fleet import STATUSES
from snaptool.providers.provider import Kind

CSS = (Path(pages.__file__).parent / "templates" / "base.html").read_text()
FILLS = sorted(set(re.findall(r"background: var\(--(\w+)\); }", CSS)) - {"paper"})


def colours(mode: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[:2]
    found = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", light))
    return found if mode == "light" else found | dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", dark))


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(char * 2 for char in colour[1:])
    parts = []
    for at in (0, 2, 4):
        value = int(digits[at : at + 2], 16) / 255
        parts.append(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_formula_is_that_of_wcag() -> None:
    assert round(contrast("#000", "#fff"), 2) == 21
    assert round(contrast("#777777", "#ffffff"), 2) == 4.48


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_can_be_read_on_everything_that_it_stands_on(mode: str) -> None:
    found = colours(mode)
    assert len(FILLS) >= 9
    for fill in FILLS:
        assert contrast(found["ink"], found[fill]) >= 4.5, (mode, fill)
    for text in ("ink", "soft", "link"):
        assert contrast(found[text], found["paper"]) >= 4.5, (mode, text)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_focus_and_the_edge_of_a_field_show(mode: str) -> None:
    found = colours(mode)
    assert contrast(found["link"], found["paper"]) >= 3
    assert contrast(found["soft"], found["paper"]) >= 3


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_area_of_a_picture_has_an_edge_that_shows(mode: str) -> None:
    """An area may be as light as the paper, or lie beside one of its own colour: its edge tells them apart."""
    (edge,) = re.findall(r"svg \.edge \{ stroke: var\(--(\w+)\)", CSS)
    found = colours(mode)
    for beside in ("paper", *FILLS):
        assert contrast(found[edge], found[beside]) >= 3, (mode, beside)
    templates = Path(pages.__file__).parent / "templates"
    rects = [one for path in templates.glob("*.html") for one in re.findall(r"<rect [^>]*>", path.read_text())]
    assert len(rects) == 5
    assert all(re.search(r'class="(edge|heat|free)', one) for one in rects), "an area without an edge"


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_edge_of_a_part_with_few_values_shows(mode: str) -> None:
    css = re.findall(r"--heat: (\d+), (\d+), (\d+);", CSS)[mode == "dark"]
    heat = "#" + "".join(f"{int(part):02x}" for part in css)
    assert "svg .heat { stroke: rgb(var(--heat))" in CSS
    assert contrast(heat, colours(mode)["paper"]) >= 3


def test_every_status_and_provider_has_a_colour() -> None:
    """What has none would be black."""
    words = [*STATUSES, *Kind, "unknown", "opens", "stale", "lost", "undecodable", "not opened", "not encrypted"]
    for word in words:
        slug = re.sub(r"[ /]", "-", word.replace("(", "").replace(")", ""))
        assert re.search(rf"\.{slug}\b[^{{}}]*\{{ fill: var", CSS), word
    assert "svg rect { fill: var(--none); }" in CSS
