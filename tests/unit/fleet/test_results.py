"""What shards leave is read as what it is: records, or something that is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaptool.errors import InputError
from snaptool.fleet import STATUSES, Places, Question, Store, document, mark_same, report
from snaptool.fleet.looking import look
from snaptool.fleet.places import read_backup
from snaptool.fleet.results import is_record
from snaptool.pages import audit_page
from tests.support.cli import SAMPLES

ODD = st.sampled_from(
    [None, True, -1, 1 << 63, 0.5, "", "x", "\ud800", "2026-01-01T00:00:00", [], [None], {}, {"a": 1}]
)


def record() -> dict[str, Any]:
    (backup,) = Places().find(str(SAMPLES / "lost-key.db")).backups
    return json.loads(json.dumps(look(backup, Question(check="census"))))  # type: ignore[no-any-return]


RECORD = record()


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] * bool(at) + [place for name, one in inside for place in places(one, (*at, name))]


@settings(deadline=None)
@given(st.sampled_from(places(RECORD)), ODD | st.sampled_from([...]))
def test_whatever_is_taken_for_a_record_can_be_kept_and_shown(place: tuple[Any, ...], odd: Any) -> None:
    changed = json.loads(json.dumps(RECORD))
    inside = changed
    for name in place[:-1]:
        inside = inside[name]
    if odd is ...:
        del inside[place[-1]]
    else:
        inside[place[-1]] = odd
    if not is_record(changed):
        return
    with Store(None) as store:
        store.put(changed, "0" * 64)
        kept = store.newest()
    mark_same(kept)
    whole = {**document(report(kept), kept=0), "records": kept}
    assert audit_page(whole, STATUSES, []).startswith("<!DOCTYPE html>")


def test_a_record_is_one() -> None:
    assert is_record(RECORD)
    assert not is_record({**RECORD, "format": 2})
    assert not is_record([])


@settings(deadline=None)
@given(st.data())
def test_every_line_of_a_list_is_a_backup_or_refused(data: st.DataObject) -> None:
    (backup,) = Places().find(str(SAMPLES / "lost-key.db")).backups
    line = json.loads(json.dumps(backup.document()))
    assert read_backup(line) == backup
    place = data.draw(st.sampled_from(places(line)))
    inside = line
    for name in place[:-1]:
        inside = inside[name]
    inside[place[-1]] = data.draw(ODD | st.just("a\0b"))
    try:
        found = read_backup(line)
    except InputError:
        return
    assert found.size >= 0
    assert look(found, Question(check="quick"))["status"] in STATUSES


@pytest.mark.parametrize("name", ["a\0b", "/no/such/file"])
def test_a_name_that_is_none_is_no_bug(name: str) -> None:
    line = {**json.loads(json.dumps(Places().find(str(SAMPLES / "lost-key.db")).backups[0].document()))}
    line["files"][0]["name"] = line["path"] = name
    if "\0" in name:
        with pytest.raises(InputError):
            read_backup(line)
        return
    assert look(read_backup(line), Question(check="census"))["error"]["kind"] == "cannot_read"
