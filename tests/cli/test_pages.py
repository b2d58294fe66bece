"""`--html`: pages that need nothing but themselves, show nothing secret, and are not led by what is in a snapshot."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from snaptool import pages
from snaptool.fleet import STATUSES, document, report
from snaptool.pages import audit_page, diff_page, inspect_page, verify_page
from tests.support.cli import SAMPLES, Snaptool

HOSTILE = "</title></style><script>alert(1)</script><img src=//evil onerror='x'>\"&\u202e\x1b[2J{{ 7 * 7 }}"
VOID = {"meta", "br", "rect", "wbr"}
SCRIPT = (Path(pages.__file__).parent / "templates" / "page.js").read_text()


class Tags(HTMLParser):
    """The elements of a page, with their attributes, and whether each is closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID or (tag == "rect" and not (self.get_starttag_text() or "").endswith("/>")):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def checked(page: Path | str) -> Tags:
    """Hold a page to what every page promises."""
    text = page.read_text() if isinstance(page, Path) else page
    tags = Tags(text)
    assert {tag for tag, _ in tags.found}.isdisjoint({"link", "img", "iframe", "object", "base", "form", "a"})
    for tag, attributes in tags.found:
        assert not any(name.startswith("on") or name in {"src", "href", "srcset"} for name in attributes), tag
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "div":
            assert (attributes["tabindex"], attributes["role"]) == ("0", "region"), "reachable by keyboard"
    assert [tag for tag, _ in tags.found].count("script") == 1
    assert f"<script>{SCRIPT}</script>" in text, "one script, which is ours, and no other runs"
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri" in text
    assert not re.search(r"url\(|@import", text)
    return tags


def test_inspect_shows_the_census_what_opens_ages_and_pages(snaptool: Snaptool) -> None:
    source, page = snaptool.sample("lost-key.db"), snaptool.folder / "page.html"
    words = ("inspect", source, "--config", SAMPLES / "lost-key.yaml", "--html", page)
    ran = snaptool(*words, "-o", "json", makes=[page])
    assert page.stat().st_mode & 0o777 == 0o600
    tags = checked(page)
    labels = [attributes["aria-label"] or "" for tag, attributes in tags.found if tag == "svg"]
    assert len(labels) == 6, "two pictures are drawn for telephones, too"
    lost = sum(row["lost"] for row in ran.json["census"])
    assert f"{lost} lost" in labels[0]
    text = " ".join(tags.words)
    for row in ran.json["census"]:
        assert row["resource"] in text
    assert snaptool(*words).code == 2, "a page that is there stays"
    assert snaptool(*words, "--force", replaces=[page]).code == 3


def test_the_parts_of_the_first_bar_are_all_values(snaptool: Snaptool) -> None:
    source, page = snaptool.sample("mixed-providers.db"), snaptool.folder / "page.html"
    ran = snaptool("inspect", source, "-c", SAMPLES / "mixed.yaml", "--html", page, "-o", "json", makes=[page])
    label = next(attributes["aria-label"] for tag, attributes in checked(page).found if tag == "svg") or ""
    counted = sum(int(number.replace(",", "")) for number in re.findall(r"([\d,]+) [a-z]", label))
    assert counted == sum(row["live"] + row["old"] for row in ran.json["census"])


def test_the_other_pages_hold_what_their_commands_print(snaptool: Snaptool) -> None:
    lost, other = snaptool.sample("lost-key.db"), snaptool.sample("aescbc-cluster.db")
    page = snaptool.folder / "page.html"
    ran = snaptool("verify", lost, "-c", SAMPLES / "lost-key.yaml", "--html", page, "-o", "json", makes=[page])
    text = " ".join(checked(page).words)
    assert all(found["code"] in text for found in ran.json["findings"])
    words = ("--config-a", SAMPLES / "lost-key.yaml", "--config-b", SAMPLES / "aescbc.yaml", "--html", page, "--force")
    ran = snaptool("diff", lost, other, *words, "-o", "json", replaces=[page])
    text = " ".join(checked(page).words)
    assert all(one["name"] in text for way in ("added", "removed", "changed") for one in ran.json[way])
    assert snaptool("diff", lost, other, "secret", "x", "--html", page, "--force").code == 2


def test_an_audit_shows_every_backup_and_a_page_is_no_backup(snaptool: Snaptool) -> None:
    folder = snaptool.folder / "backups"
    folder.mkdir()
    for day in (1, 2, 9):
        shutil.copy2(SAMPLES / "aescbc-cluster.db", folder / f"etcd-2026-03-0{day}.db")
    (folder / "etcd-2026-03-05.db").write_bytes((SAMPLES / "aescbc-cluster.db").read_bytes()[:20_000])
    page, store = folder / "page.html", snaptool.folder / "store.db"
    words = ("audit", folder, "--config", SAMPLES / "aescbc.yaml", "--store", store, "--html", page, "-o", "json")
    ran = snaptool(*words, makes=[page, store])
    tags = checked(page)
    text = " ".join(tags.words)
    assert all(record["url"].removeprefix(f"{folder}/") in text for record in ran.json["records"])
    assert str(folder) in "".join(tags.words)
    assert "2026-03-05: 1, damaged" in text
    digest = hashlib.sha256((SAMPLES / "aescbc.yaml").read_bytes()).hexdigest()
    assert digest in "".join(tags.words)
    snaptool("audit", "--report-only", "--store", store, "--html", page, "--force", replaces=[page, store])
    assert digest in "".join(checked(page).words), "earlier answers say what they were read with"
    again = snaptool(*words, "--force", replaces=[page, store])
    assert (again.json["kept"], again.json["backups"], len(again.json["records"])) == (4, 4, 4)


def test_a_page_of_nothing_says_so(snaptool: Snaptool) -> None:
    """An etcd without one key, and an audit that found no backup."""
    source = snaptool.sample("audit/20-audit-empty/bucket/etcd-snapshot-server1-1772352000", "empty.db")
    page = snaptool.folder / "page.html"
    cases: list[tuple[list[str | Path], list[str]]] = [
        (["inspect", source], ["no values", "none: no values are stored"]),
        (["diff", source, source], ["no keys"]),
        (["verify", source], ["none"]),
    ]
    for words, says in cases:
        snaptool(*words, "--html", page, makes=[page])
        words_of_page = {word.strip() for word in checked(page).words}
        assert words_of_page >= set(says), words
        page.unlink()
    nothing: dict[str, Any] = {**document(report([]), kept=0), "records": []}
    tags = checked(audit_page(nothing, STATUSES, []))
    assert "svg" not in {tag for tag, _ in tags.found}, "no picture of nothing"
    assert "the table says nothing of any key" in "".join(tags.words)


def test_of_too_many_series_the_calendar_shows_the_worst(snaptool: Snaptool) -> None:
    source, store = snaptool.sample("aescbc-cluster.db"), snaptool.folder / "store.db"
    (one,) = snaptool("audit", source, "--store", store, "-o", "json", makes=[store]).json["records"]
    records = []
    for number in range(5_000):
        series, day = divmod(number, 25)
        status = "damaged" if series == 199 and day == 7 else "ok"
        url = f"/backups/c{series:03}/etcd-2026-03-{day + 1:02}.db"
        time, of = f"2026-03-{day + 1:02}T00:00:00Z", f"/backups/c{series:03}/etcd-*.db"
        records.append({**one, "url": url, "series": of, "time": time, "status": status})
    text = audit_page({**document(report(records), kept=0), "records": records}, STATUSES, [])
    tags = checked(text)
    words = "".join(tags.words)
    assert "c199/etcd-*.db, 2026-03-08: 1, damaged" in words
    assert "140 more series, none of them worse" in words
    assert words.count("c000/etcd-2026-03-01.db") == 1, "every backup has its row"
    assert len(text) < 5_000 * 1_000, "a thousand bytes for each backup, pictures included"


def foreign(value: Any, keep: frozenset[str], name: str = "", *, text: str = HOSTILE) -> Any:
    """Put markup and escape sequences into every text that comes from a snapshot, a configuration or a file system."""
    if isinstance(value, dict):
        return {key: foreign(one, keep, key, text=text) for key, one in value.items()}
    if isinstance(value, list):
        return [foreign(one, keep, name, text=text) for one in value]
    return text if isinstance(value, str) and name not in keep else value


def page_of(command: str, document: Any) -> str:
    if command == "inspect":
        return inspect_page(document, [(document["file"]["path"], [1, 0, 3])])
    if command == "audit":
        return audit_page(document, STATUSES, [(document["records"][0]["url"], "0" * 64)])
    return verify_page(document) if command == "verify" else diff_page(document)


KEEP = frozenset({"trailer", "severity", "status", "check", "time", "modified", "checked_at"})


@pytest.mark.parametrize("command", ["inspect", "verify", "diff", "audit"])
def test_markup_in_names_is_text(snaptool: Snaptool, command: str) -> None:
    source, store = snaptool.sample("lost-key.db"), snaptool.folder / "store.db"
    words: list[str | Path] = [command, source, "-o", "json"]
    if command == "diff":
        words[2:2] = [snaptool.sample("aescbc-cluster.db")]
    if command == "audit":
        words += ["--store", store, "--config", SAMPLES / "lost-key.yaml"]
    document = json.loads(snaptool(*words, makes=[store] if command == "audit" else []).stdout)
    made = []
    for one in (document, foreign(document, KEEP)):
        page = page_of(command, one)
        assert "\x1b" not in page
        assert "\u202e" not in page
        made.append(checked(page))
    assert {tag for tag, _ in made[0].found} >= {tag for tag, _ in made[1].found}
    assert "".join(made[1].words).count("<script>alert(1)</script>") > 0, "it is there, as text"
    assert "{{ 7 * 7 }}" in "".join(made[1].words)
