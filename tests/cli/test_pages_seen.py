"""Pages in a real browser: nothing is fetched, nothing complains, everything can be reached and read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snaptool.cli import run
from tests.cli.test_pages import KEEP, foreign, page_of
from tests.support.chromium import PROGRAM, Browser, browser
from tests.support.cli import SAMPLES

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed (apt-get install chromium)")
COMMANDS = ("inspect", "verify", "diff", "audit")

CONTRASTS = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b); };
  const behind = (element) => { for (let at = element; at; at = at.parentElement) {
    const colour = rgb(getComputedStyle(at).backgroundColor); if (colour[3] === 255) return colour; }
    return [255, 255, 255, 255]; };
  let worst = 99, where = "";
  for (const element of document.querySelectorAll("body *")) {
    if (["SCRIPT", "TITLE"].includes(element.tagName) || element.closest("svg")) continue;
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    if (!element.getClientRects().length) continue;
    const [one, two] = [light(rgb(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    const found = (one + 0.05) / (two + 0.05);
    if (found < worst) { worst = found; where = element.outerHTML.slice(0, 80); }
  }
  return [worst, where];
})()
"""
FOCUS = """
(() => { const at = document.activeElement; const style = getComputedStyle(at);
  return [at.tagName, at.getAttribute("aria-label") || at.textContent.trim(), style.outlineStyle]; })()
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of every command, and one of each with markup in all foreign names."""
    folder = tmp_path_factory.mktemp("pages")
    bucket = folder / "bucket"
    bucket.mkdir()
    for day in range(1, 11):
        whole = (SAMPLES / ("lost-key.db" if day % 3 else "aescbc-cluster.db")).read_bytes()
        (bucket / f"etcd-2026-03-{day:02}.db").write_bytes(whole[: len(whole) // (1 + (day == 7))])
    lost, key = str(shutil.copy2(SAMPLES / "lost-key.db", folder)), str(SAMPLES / "lost-key.yaml")
    other = str(SAMPLES / "aescbc-cluster.db")
    words = {
        "inspect": [lost, "-c", key],
        "verify": [lost, "-c", key],
        "diff": [lost, other, "--config-a", key, "--config-b", str(SAMPLES / "aescbc.yaml")],
        "audit": [str(bucket), "--store", str(folder / "store.db"), "--config", key],
    }
    for command, arguments in words.items():
        assert run([command, *arguments, "--html", str(folder / f"{command}.html"), "-q"]) in {0, 1, 3}
    return folder


def printed(command: str, made: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What a command prints of the sample with lost keys."""
    words = [command, str(made / "lost-key.db"), "-o", "json"]
    words += [str(SAMPLES / "aescbc-cluster.db")] if command == "diff" else []
    words += ["--store", str(folder / "s.db"), "-c", str(SAMPLES / "lost-key.yaml")] if command == "audit" else []
    run(words)
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def calm(page: Browser, path: Path) -> None:
    """Nothing was said, and nothing but the page itself was asked for."""
    assert page.said == []
    assert page.requests == [path.as_uri()]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_fits_its_window_and_can_be_read(
    page: Browser, made: Path, command: str, width: int, *, dark: bool
) -> None:
    path = made / f"{command}.html"
    page.open(path, width=width, dark=dark)
    calm(page, path)
    assert page.picture()[:4] == b"\x89PNG"
    assert page.value("document.documentElement.scrollWidth") == width, "nothing hangs out of the window"
    worst, where = page.value(CONTRASTS)
    assert worst >= 4.5, where
    paper = page.value("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark
    beside = (
        "[...document.querySelectorAll('table.stack')].filter((t) => t.scrollWidth > t.parentNode.clientWidth).length"
    )
    assert width != 400 or page.value(beside) == 0, "tables are turned into lists where they do not fit"


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_cut_on_paper(page: Browser, made: Path, command: str) -> None:
    """A4 with its margins is 718 pixels wide; what does not fit is not scrolled there."""
    page.open(made / f"{command}.html", width=718)
    page("Emulation.setEmulatedMedia", media="print")
    cut = "[...document.querySelectorAll('main *')].filter((one) => one.getBoundingClientRect().right > 719)"
    found = page.value(f"{cut}.map((one) => one.outerHTML.slice(0, 60))")
    page("Emulation.setEmulatedMedia", media="")
    assert found == []


@pytest.mark.parametrize("command", COMMANDS)
def test_everything_is_reached_by_keyboard(page: Browser, made: Path, command: str) -> None:
    page.open(made / f"{command}.html", width=1280)
    wanted = page.value(
        "[...document.querySelectorAll('[tabindex], button, input')].map((e) => e.getAttribute('aria-label') || "
        "e.textContent.trim())"
    )
    reached = []
    for _ in wanted:
        page.press("Tab", 9)
        tag, name, outline = page.value(FOCUS)
        assert outline != "none", f"the focus on {tag} {name} shows"
        reached.append(name)
    assert sorted(reached) == sorted(wanted)


def test_tables_are_sorted_and_filtered_without_a_mouse(page: Browser, made: Path) -> None:
    page.open(made / "audit.html", width=1280)
    rows = "[...document.querySelectorAll('[aria-label=Backups] tbody tr:not([hidden])')]"
    times = f"{rows}.map((row) => row.cells[2].textContent)"
    before = page.value(times)
    page.value("document.querySelectorAll('[aria-label=Backups] th button')[2].focus()")
    page.press("Enter", 13)
    assert page.value(times) == sorted(before) != before
    assert (
        page.value("document.querySelectorAll('[aria-label=Backups] th')[2].getAttribute('aria-sort')") == "ascending"
    )
    page.press("Enter", 13)
    assert page.value(times) == sorted(before, reverse=True)
    page.value("document.querySelector('input').focus()")
    for char in "damaged":
        page.press(char, ord(char.upper()))
    assert page.value(times) == ["2026-03-07 00:00"]
    assert page.value("document.querySelector('output').value") == "1 of 10"
    calm(page, made / "audit.html")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_says_the_same_without_scripts(page: Browser, made: Path, command: str) -> None:
    words = "document.querySelector('main').innerText.replace(/[\\u2195]|Rows that hold/g, '').replace(/\\s+/g, ' ')"
    page.open(made / f"{command}.html", width=1280)
    page.value("for (const one of document.querySelectorAll('.filter')) one.remove()")
    with_script = page.value(words)
    page.open(made / f"{command}.html", width=1280, scripts=False)
    assert page.value(words) == with_script


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("command", COMMANDS)
def test_names_without_an_end_stay_in_the_window(
    page: Browser, made: Path, command: str, width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "long.html"
    path.write_text(page_of(command, foreign(printed(command, made, tmp_path, capsys), KEEP, text="x" * 900)))
    page.open(path, width=width)
    calm(page, path)
    assert page.value("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("command", COMMANDS)
def test_markup_in_names_does_nothing(
    page: Browser, made: Path, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(page_of(command, foreign(printed(command, made, tmp_path, capsys), KEEP)))
    page.open(path, width=1280)
    calm(page, path)
    assert page.value("document.querySelectorAll('img, iframe, script:not(:last-child)').length") == 0
    assert page.value("document.title").count("<script>") + page.value("document.body.innerText").count("<script>") > 0
    assert page.value("document.documentElement.scrollWidth") == 1280
