"""`snaptool audit` as the keeper of many backups meets it: odd fleets, odd stores, and what is written where."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from snaptool.etcd import KeyValue, Revision, encode_key_value, encode_revision_key
from snaptool.fleet import FORMAT, Audit, Places, Question, Store
from snaptool.fleet.looking import look
from snaptool.fleet.store import Asked, is_answered
from tests.support.cli import GOLDEN, SAMPLES, Ran, Snaptool
from tests.support.history import make_snapshot
from tests.support.kine import Change, fill, make_kine

AESCBC = SAMPLES / "aescbc.yaml"
CONTAINERS = GOLDEN / "containers"
K3S = CONTAINERS / "plain" / "etcd-snapshot-node-1-1767323045"
GOOD, LOST = SAMPLES / "aescbc-cluster.db", SAMPLES / "lost-key.db"


@pytest.fixture
def folder(snaptool: Snaptool) -> Path:
    """Two backups that open with the key, and one that does not."""
    made = snaptool.folder / "backups"
    made.mkdir()
    for day, sample in ((27, GOOD), (28, GOOD), (29, LOST)):
        shutil.copy2(sample, made / f"etcd-2026-11-{day}.db")
    return made


def audit(snaptool: Snaptool, *arguments: str | Path, first: bool = False, more: tuple[Path, ...] = ()) -> Ran:
    store = snaptool.folder / "store.db"
    return snaptool(
        *("audit", *arguments, "--store", store),
        makes=[store, *more] if first else more,
        replaces=[] if first else [store],
    )


def replace(path: Path, sample: Path) -> None:
    shutil.copy2(sample, path.with_name("new"))
    path.with_name("new").rename(path)


# -- what is written, and over what


def as_it_is(path: Path) -> Path:
    return path


def by_a_link(path: Path) -> Path:
    link = path.with_name("link.html")
    link.hardlink_to(path)
    return link


@pytest.mark.parametrize("spelled", [as_it_is, by_a_link])
def test_a_page_is_never_written_over_a_backup(
    snaptool: Snaptool, folder: Path, spelled: Callable[[Path], Path]
) -> None:
    target = spelled(folder / "etcd-2026-11-28.db")
    ran = audit(snaptool, folder, "--html", target, "--force", first=True)
    assert (ran.code, "which this run reads" in ran.stderr) == (2, True), ran.text
    assert target.read_bytes() == GOOD.read_bytes()


def test_a_page_is_never_written_into_a_data_directory(snaptool: Snaptool) -> None:
    snap = snaptool.folder / "data" / "member" / "snap"
    snap.mkdir(parents=True)
    shutil.copy2(GOOD, snap / "db")
    ran = audit(snaptool, snaptool.folder / "data", "--html", snap.parent / "page.html", first=True)
    assert (ran.code, "the data of an etcd" in ran.stderr) == (2, True), ran.text


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
@pytest.mark.parametrize("words", [["FOLDER"], ["--report-only"]])
def test_a_page_is_never_written_over_the_store(snaptool: Snaptool, folder: Path, end: str, words: list[str]) -> None:
    audit(snaptool, folder, first=True)
    store = snaptool.folder / "store.db"
    named = [str(folder) if word == "FOLDER" else word for word in words]
    ran = audit(snaptool, *named, "--html", f"{store}{end}", "--force")
    assert (ran.code, "which this run reads" in ran.stderr) == (2, True), ran.text
    assert audit(snaptool, "--report-only", "-o", "json").json["backups"] == 3


def test_a_store_takes_nothing_that_is_beside_it(snaptool: Snaptool, folder: Path) -> None:
    """SQLite would remove them as parts of a database."""
    for end in ("-wal", "-shm", "-journal"):
        store = snaptool.folder / f"new{end}.db"
        beside = snaptool.folder / f"new{end}.db{end}"
        beside.write_bytes(b"this is a backup of something")
        ran = snaptool("audit", folder, "--store", store)
        assert (ran.code, "belongs to no store" in ran.stderr) == (1, True), ran.text
        assert not store.exists()


def test_a_database_of_another_program_stays_as_it_is_with_its_log(snaptool: Snaptool, folder: Path) -> None:
    """Opening it as a database would move its log into it, as with Kine's."""
    store = snaptool.folder / "state.db"
    words = [
        "import sqlite3, os; d = sqlite3.connect('state.db'); d.execute('pragma journal_mode=wal')",
        "d.execute('create table kine (id)'); d.execute('pragma wal_checkpoint(truncate)')",
        "d.execute('insert into kine values (1)'); d.commit(); os._exit(0)",
    ]
    subprocess.run([sys.executable, "-c", "; ".join(words)], check=True, cwd=snaptool.folder)
    before = {path: path.read_bytes() for path in snaptool.folder.glob("state.db*")}
    assert len(before) == 3
    ran = snaptool("audit", folder, "--store", store)
    assert (ran.code, "of something else" in ran.stderr) == (1, True), ran.text
    assert {path: path.read_bytes() for path in snaptool.folder.glob("state.db*")} == before


def test_a_full_disk_under_the_store_ends_the_run_with_what_was_kept(snaptool: Snaptool, folder: Path) -> None:
    """A limit on the size of files is met by SQLite as a full disk is."""
    for number in range(40):
        shutil.copy2(GOOD, folder / f"n{number:02}.db")
    store = snaptool.folder / "store.db"
    words = f"ulimit -f 80; exec {sys.executable} -m snaptool audit {folder} --store {store} -o jsonl --jobs 2"
    ran = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)
    assert (ran.returncode, "cannot use the store" in ran.stderr) == (1, True), ran.stderr
    assert "Traceback" not in ran.stderr
    with closing(sqlite3.connect(store)) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        (kept,) = database.execute("select count(*) from result").fetchone()
    assert 0 < kept < 43
    assert len(ran.stdout.splitlines()) <= kept, "what is shown is in the store"
    again = audit(snaptool, folder, "-o", "json")
    assert (again.json["kept"], len(again.json["records"])) == (kept, 43)


# -- what a report says of what was not looked at


def test_a_report_on_a_part_gives_no_answer_about_keys(snaptool: Snaptool, folder: Path) -> None:
    """The backups that were left out may need the key that is not in the table."""
    whole = audit(snaptool, folder, "--config", AESCBC, "-o", "json", first=True).json
    assert (whole["left_out"], "is needed by none of these" in whole["reach"]) == (0, True)
    for words, left in (
        (["--newest", "1"], 2),
        (["--since", "2026-11-28"], 1),
        (["--larger-than", "55K"], 2),
        (["--newest", "1", "--report-only"], 2),
    ):
        part = audit(snaptool, folder, "--config", AESCBC, "-o", "json", *words).json
        assert part["left_out"] == left, words
        assert f"Of 3 listed backups, {left} w" in part["reach"], words
        assert "does not say that a key may be destroyed" in part["reach"], words


def test_a_link_that_leads_elsewhere_is_something_that_was_not_looked_at(snaptool: Snaptool, folder: Path) -> None:
    (folder / "latest.db").symlink_to("etcd-2026-11-28.db")
    (folder / "loop").symlink_to("..")
    elsewhere = snaptool.folder / "elsewhere.db"
    shutil.copy2(GOOD, elsewhere)
    (folder / "inside").mkdir()
    (folder / "inside" / "up").symlink_to("..")
    ran = audit(snaptool, folder, "--config", AESCBC, "-o", "json", first=True)
    assert "1 symbolic link was not followed" in ran.stderr, "the loop leads out of the folder"
    assert ran.json["left_out"] == 1
    (folder / "loop").unlink()
    ran = audit(snaptool, folder, "--config", AESCBC, "-o", "json")
    assert (ran.json["left_out"], ran.stderr.count("link")) == (0, 0)


def test_a_report_without_a_listing_says_so(snaptool: Snaptool, folder: Path) -> None:
    audit(snaptool, folder, "--config", AESCBC, first=True)
    known = audit(snaptool, "--report-only", "-o", "json").json
    assert known["left_out"] is None
    assert known["reach"].startswith("All 3 known backups were read whole; backups that are not in the store, ")
    part = audit(snaptool, "--report-only", "--newest", "1", "-o", "json").json
    assert (part["backups"], part["left_out"]) == (1, 2)


def test_a_report_is_on_what_is_there_now(snaptool: Snaptool, folder: Path) -> None:
    audit(snaptool, folder, "--config", AESCBC, first=True)
    replace(folder / "etcd-2026-11-28.db", LOST)
    shutil.copy2(LOST, folder / "later.db")
    (folder / "etcd-2026-11-27.db").unlink()
    ran = audit(snaptool, folder, "--report-only", "-o", "json")
    found = {Path(one["url"]).name: (one["status"], (one["error"] or {}).get("kind")) for one in ran.json["records"]}
    assert found == {
        "etcd-2026-11-28.db": ("failed", "not_looked_at"),
        "etcd-2026-11-29.db": ("undecryptable", None),
        "later.db": ("failed", "not_looked_at"),
    }
    assert ran.code == 1, "an audit that did not see everything must not look clean"


@pytest.mark.parametrize("words", [["--since", "2030-01-01"], ["--larger-than", "1G"], ["--since", "2030-01-01", "-q"]])
def test_nothing_that_fits_is_no_success(snaptool: Snaptool, folder: Path, words: list[str]) -> None:
    """As when backups are no longer made: cron has to hear of it."""
    ran = audit(snaptool, folder, *words, first=True)
    assert (ran.code, "none of 3 backups" in ran.stderr) == (2, True), ran.text
    assert snaptool("audit", folder, *words, "--list").code == 2


@pytest.mark.parametrize("output", ["text", "json", "jsonl"])
def test_a_folder_without_one_backup_is_no_success(snaptool: Snaptool, output: str) -> None:
    place = snaptool.folder / "notes"
    place.mkdir()
    (place / "a.txt").write_text("hello")
    ran = audit(snaptool, place, "-q", "-o", output, first=True)
    assert (ran.code, "no backup among 1 file" in ran.stderr) == (2, True), ran.text
    assert audit(snaptool, place, "--fail-on", "not_a_snapshot").code == 3


def test_an_empty_store_has_no_report(snaptool: Snaptool) -> None:
    store = snaptool.folder / "store.db"
    Store(store).close()
    ran = audit(snaptool, "--report-only")
    assert (ran.code, "knows no backup" in ran.stderr) == (2, True), ran.text


@pytest.mark.parametrize(
    "words",
    [
        ["--merge", "x", "--newest", "1"],
        ["--merge", "x", "--check", "quick"],
        ["--merge", "x", "--report-only"],
        ["--merge", "x", "--shard", "0/2"],
        ["--report-only", "--recheck", "all"],
        ["--report-only", "--forget-gone"],
        ["--report-only", "--list"],
        ["--results", "x", "--shard", "0/2", "--html", "page.html"],
        ["--list", "--html", "page.html"],
        ["--check", "quick", "--salvage"],
        ["--per", "prefix"],
        ["--tls-ca", str(AESCBC)],
        ["--recheck", "faild"],
        ["--recheck", "s3://bucket/not-here"],
    ],
)
def test_what_would_be_ignored_is_refused(snaptool: Snaptool, folder: Path, words: list[str]) -> None:
    there = [] if "--merge" in words else [folder]
    store = snaptool.folder / "s.db"
    ran = snaptool("audit", *there, *words, "--store", store, makes=[store] if words[0] == "--recheck" else [])
    assert ran.code == 2, ran.text
    assert any(word in ran.stderr for word in words if word.startswith("--")), ran.text


# -- the store: other runs, other versions, clocks


def test_several_that_begin_a_store_at_once_all_end_well(snaptool: Snaptool, folder: Path) -> None:
    store = snaptool.folder / "store.db"
    words = [
        sys.executable,
        "-m",
        "snaptool",
        "audit",
        str(folder),
        "--store",
        str(store),
        "-o",
        "jsonl",
        "--jobs",
        "1",
    ]
    runs = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(5)]
    said = [one.communicate() for one in runs]
    assert [one.returncode for one in runs] == [0] * 5, said
    assert [len(out.splitlines()) for out, _ in said] == [3] * 5
    with closing(sqlite3.connect(store)) as database:
        assert database.execute("select count(*), count(distinct url) from result").fetchall() == [(3, 3)]
        doubled = "select url, resource, provider, key_name from census group by 1, 2, 3, 4 having count(*) > 1"
        assert database.execute(doubled).fetchall() == []


def test_the_newest_answer_is_the_last_whatever_the_clock_said(snaptool: Snaptool, folder: Path) -> None:
    audit(snaptool, folder, "--config", AESCBC, first=True)
    store = snaptool.folder / "store.db"
    with closing(sqlite3.connect(store)) as database, database:  # as a run whose clock was a year ahead
        database.execute(
            "update result set checked_at = '2027-11-29T00:00:00Z', "
            "record = json_set(record, '$.checked_at', '2027-11-29T00:00:00Z')"
        )
    replace(folder / "etcd-2026-11-28.db", LOST)
    audit(snaptool, folder, "--config", AESCBC)
    known = audit(snaptool, "--report-only", "-o", "json").json
    assert known["counts"] == {"ok": 1, "undecryptable": 2}


def test_a_kept_answer_is_the_newest_again(tmp_path: Path) -> None:
    """An object that is put back has the version that it had: what is known of that is what is there now."""
    path = tmp_path / "a.db"
    first, other = tmp_path / "first", tmp_path / "other"
    shutil.copy2(GOOD, first)
    shutil.copy2(LOST, other)
    with Store(None) as store:
        for there in (first, other, first):
            path.unlink(missing_ok=True)
            path.hardlink_to(there)
            (backup,) = Places().find(str(path)).backups
            run = Audit([backup], Question(check="census"), store)
            records = list(run.run())
            assert [one["sha256"] for one in store.newest()] == [one["sha256"] for one in records]
        assert run.kept == 1


def test_a_store_of_the_first_format_is_taken_over(snaptool: Snaptool, folder: Path) -> None:
    audit(snaptool, folder, "--config", AESCBC, first=True)
    store = snaptool.folder / "store.db"
    with closing(sqlite3.connect(store)) as database, database:
        wanted = database.execute("select * from census order by 1, 4, 5, 6").fetchall()
        for statement in (
            "drop view newest",
            "drop view keys_needed",
            "drop table census",
            "create table census (url, version, question, resource, provider, key_name, live, old, lost, stale)",
            "create view newest as select * from result",
            "create view keys_needed as select 1",
            "pragma user_version = 1",
        ):
            database.execute(statement)
    assert audit(snaptool, folder, "--config", AESCBC, "-o", "json").json["kept"] == 3
    with closing(sqlite3.connect(store)) as database:
        assert database.execute("select * from census order by 1, 4, 5, 6").fetchall() == wanted
        assert database.execute("pragma user_version").fetchone() == (2,)


def test_the_census_says_which_configuration_opens(snaptool: Snaptool, folder: Path) -> None:
    import hashlib

    audit(snaptool, folder, "--config", AESCBC, "--config", SAMPLES / "lost-key.yaml", first=True)
    with closing(sqlite3.connect(snaptool.folder / "store.db")) as database:
        rows = database.execute(
            "select distinct provider, key_name, config, lost from census where resource = 'secrets' order by 2"
        ).fetchall()
    digests = [hashlib.sha256(one.read_bytes()).hexdigest() for one in (AESCBC, SAMPLES / "lost-key.yaml")]
    opened = {row[1]: row[2] for row in rows if row[3] == 0}
    assert opened["key1"] == digests[0]
    assert set(opened.values()) == set(digests)
    assert all(config is None for _, _, config, lost in rows if lost)


# -- what is asked again


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_a_store_that_can_only_be_read_is_reported_from(snaptool: Snaptool, folder: Path) -> None:
    """As on a volume that is mounted for the reports alone."""
    audit(snaptool, folder, first=True)
    words = "import os, sys; from pathlib import Path; import snaptool.cli; from snaptool.fleet import Store, NoStore\n"
    words += "os.setuid(65534)\ntry: print(len(Store(Path(sys.argv[1]), must_exist=True).newest()))\n"
    words += "except NoStore as error: print(error.hint)"
    with tempfile.TemporaryDirectory() as all_may_enter:
        Path(all_may_enter).chmod(0o755)
        store = Path(shutil.copy2(snaptool.folder / "store.db", all_may_enter))
        store.chmod(0o644)
        said = []
        for _ in range(2):
            command = [sys.executable, "-c", words, str(store)]
            said.append(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
            Path(f"{store}-wal").write_bytes(b"what a killed run left")
    assert said[0] == "3\n"
    assert "copy both" in said[1]


def test_names_that_were_not_asked_for_before_are_asked_for(snaptool: Snaptool, folder: Path) -> None:
    audit(snaptool, folder, "--config", AESCBC, first=True)
    named = audit(snaptool, folder, "--config", AESCBC, "--names", "-o", "json").json
    assert named["kept"] == 2, "what lost nothing has no names"
    assert [len(one.get("lost_names", ())) > 0 for one in named["records"]] == [False, False, True]
    assert audit(snaptool, folder, "--config", AESCBC, "--names", "-o", "json").json["kept"] == 3


def test_a_token_that_comes_later_opens_what_was_closed(snaptool: Snaptool) -> None:
    place = snaptool.folder / "k3s"
    place.mkdir()
    shutil.copy2(K3S, place / "etcd-snapshot-server1-1772352000")
    closed = audit(snaptool, place, "--embedded-config", "-o", "json", first=True).json
    assert closed["records"][0]["findings"] == ["embedded_closed"]
    assert audit(snaptool, place, "--embedded-config", "-o", "json").json["kept"] == 1
    cluster = json.loads((CONTAINERS / "config" / "k3s-cluster.json").read_text())
    token = snaptool.write("token", cluster["token"] + "\n")
    words: tuple[str | Path, ...] = (place, "--embedded-config", "--token-file", token, "-o", "json")
    opened = audit(snaptool, *words).json
    assert (opened["kept"], opened["records"][0]["opened_by"], opened["records"][0]["lost"]) == (0, ["embedded"], 0)
    assert audit(snaptool, *words).json["kept"] == 1


def test_saved_keys_that_come_later_are_looked_with_like_a_configuration() -> None:
    known = {"version": "1", "status": "undecryptable", "check": "keys", "format": FORMAT, "configs": ["A"]}
    known |= {"opened_by": ["A"], "lost": 3}
    given = Question(check="keys", saved=("A", "saved")).configs
    assert not is_answered(known, Asked("1", "keys", FORMAT, given))
    assert is_answered(known, Asked("1", "keys", FORMAT, Question(check="keys", saved=("A",)).configs))


# -- files that are not what they were when they were listed


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    shutil.copy2(GOOD, path)
    (listed,) = Places().find(str(path)).backups
    os.mkfifo(tmp_path / "a.db.sha256")
    assert look(listed, Question(check="census"))["status"] == "ok (not opened)"
    path.unlink()
    os.mkfifo(path)
    for check in ("quick", "census"):
        record = look(listed, Question(check=check))
        assert record["status"] in {"failed", "not_a_snapshot"}, record["error"]


def test_what_is_no_snapshot_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Eight exbibytes of nothing: nobody waits for its checksum."""
    path = tmp_path / "sparse.db"
    path.touch()
    for size in range(62, 30, -2):  # as large as the file system lets it be
        try:
            os.truncate(path, 1 << size)
            break
        except OSError:
            continue
    (listed,) = Places().find(str(path)).backups
    assert listed.size >= 1 << 40
    record = look(listed, Question(check="census"))
    assert (record["status"], record["sha256"]) == ("not_a_snapshot", None)


def test_a_file_that_grows_while_it_is_read_comes_to_an_end(tmp_path: Path) -> None:
    path = tmp_path / "growing.db"
    path.write_bytes(GOOD.read_bytes() + bytes(4 << 20))
    (listed,) = Places().find(str(path)).backups
    words = "import sys; f = open(sys.argv[1], 'ab', 0); print(flush=True)\nwhile True: f.write(bytes(1 << 16))"
    writer = subprocess.Popen([sys.executable, "-c", f"{LIMIT}{words}", str(path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    try:
        record = look(listed, Question(check="census"))
    finally:
        writer.kill()
        writer.communicate()
    assert (record["status"], record["error"]["kind"]) == ("failed", "source_changed")


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))\n"
"""The disk of who runs the tests has an end."""


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_a_folder_whose_names_alone_may_be_read_is_said() -> None:
    """By a user who may not, for root reads everything."""
    words = "import os, sys; from snaptool.fleet import Places; os.setuid(65534); "
    words += "places = Places(); print(len(places.find(sys.argv[1]).backups), places.closed)"
    with tempfile.TemporaryDirectory() as all_may_enter:
        Path(all_may_enter).chmod(0o755)
        place = Path(all_may_enter) / "closed"
        place.mkdir()
        shutil.copy2(GOOD, place / "a.db")
        place.chmod(0o744)
        ran = subprocess.run([sys.executable, "-c", words, str(place)], capture_output=True, text=True, check=False)
    assert ran.stdout == f"0 [('{place}/a.db', 'Permission denied')]\n", ran.stderr


def test_results_of_other_shards_are_no_backups(snaptool: Snaptool, folder: Path) -> None:
    for index in range(3):
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "snaptool", "audit", str(folder), "--shard", f"{index}/3"),
                *("--results", str(folder / "results")),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
    merged = snaptool(
        "audit",
        "--merge",
        folder / "results",
        "--store",
        snaptool.folder / "m.db",
        "-o",
        "json",
        makes=[snaptool.folder / "m.db"],
    )
    assert [Path(one["url"]).name for one in merged.json["records"]] == sorted(
        path.name for path in folder.iterdir() if path.is_file()
    )


# -- what is not of etcd


def test_a_database_of_kine_is_looked_into_with_its_log(
    snaptool: Snaptool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As k3s has it by default: Secrets in it are Secrets, and those in the log too."""
    secret = b'{"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "b", "namespace": "a"}}'
    served = tmp_path_factory.mktemp("server") / "state.db"
    place = snaptool.folder / "db"
    place.mkdir()
    words: tuple[str | Path, ...] = (place, "-o", "json")
    with closing(make_kine(served)) as database:
        fill(database, [Change(2, "/registry/secrets/a/b", secret)])
        database.execute("pragma wal_checkpoint(truncate)")
        shutil.copy2(served, place)
        (first,) = audit(snaptool, *words, first=True).json["records"]
        assert (first["status"], first["plaintext"], first["findings"]) == ("plaintext", 1, ["kine"])
        assert f"snaptool inspect {place / 'state.db'}" in audit(snaptool, place, "--check", "census").stdout
        assert audit(snaptool, *words, "--check", "quick").json["records"][0]["status"] == "ok"
        fill(database, [Change(3, "/registry/secrets/a/c", secret)])
        shutil.copy2(f"{served}-wal", place)
    (second,) = audit(snaptool, *words).json["records"]
    assert (second["plaintext"], second["files"]) == (2, ["state.db", "state.db-wal"])
    assert audit(snaptool, *words).json["kept"] == 1


# -- which is the newest


def test_the_newest_is_the_one_with_the_newest_objects_and_not_the_newest_copy(snaptool: Snaptool) -> None:
    """Copies lose dates; what nodes write every ten seconds says when a backup was made."""
    place = snaptool.folder / "copies"
    place.mkdir()
    for number, name in enumerate(("b", "c", "a")):
        history(place / f"{name}.db", f"2026-03-0{number + 1}T10:00:00.000000Z")
        os.utime(place / f"{name}.db", (1_800_000_000 - number, 1_800_000_000 - number))
    shutil.copy2(AESCBC, place / "readme.txt")
    (place / "a.db.sha256").write_text("0" * 64)
    words: tuple[str | Path, ...] = (place, "--newest", "1", "--per", "prefix", "-o", "json")
    listed = snaptool("audit", *words, "--list")
    assert [Path(one["url"]).name for one in listed.json["backups"]] == ["a.db"]
    assert "4 backups without a time in the name: looking inside" in listed.stderr
    ran = audit(snaptool, *words, first=True)
    assert [one["time"] for one in ran.json["records"]] == ["2026-03-03T10:00:00Z"]
    assert "3 backups without a time" in audit(snaptool, *words).stderr, "what is known is not opened again"
    quiet = snaptool("audit", place, "--newest", "1", "--list", "-o", "json")
    assert (len(quiet.json["backups"]), quiet.stderr) == (4, ""), "each is its own series: no time decides"


def test_a_backup_without_a_byte_does_not_hide_the_one_before_it(snaptool: Snaptool, folder: Path) -> None:
    (folder / "etcd-2026-11-30.db").touch()
    ran = audit(snaptool, folder, "--newest", "1", "--config", AESCBC, "-o", "json", first=True)
    found = {Path(one["url"]).name: one["status"] for one in ran.json["records"]}
    assert found == {"etcd-2026-11-29.db": "undecryptable", "etcd-2026-11-30.db": "not_a_snapshot"}
    assert ran.json["left_out"] == 2
    failing = audit(snaptool, folder, "--newest", "1", "--since", "2026-11-30", "--config", AESCBC)
    assert failing.code == 2, "a night that left nothing but that is heard of"


def history(path: Path, time: str) -> None:
    """A snapshot with two Leases, of which the first was renewed last."""
    records = []
    for number, renewed in enumerate((time, "2020-01-01T00:00:00.000000Z"), 2):
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"renewTime": renewed}}
        key, value = b"/registry/leases/kube-node-lease/n%d" % number, json.dumps(lease).encode()
        stored = KeyValue(key=key, create_revision=number, mod_revision=number, version=1, value=value)
        records.append((encode_revision_key(Revision(number, 0)), encode_key_value(stored)))
    path.write_bytes(make_snapshot(records))


# -- what is damaged


def test_salvage_counts_what_is_left_of_damaged_backups(snaptool: Snaptool) -> None:
    place = snaptool.folder / "broken"
    place.mkdir()
    whole = LOST.read_bytes()
    (place / "cut.db").write_bytes(whole[:30_000])
    (place / "trailer.db").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (place / "nothing.db").write_bytes(whole[:8192] + bytes(40_000))
    shutil.copy2(LOST, place / "whole.db")
    words: tuple[str | Path, ...] = (place, "--config", SAMPLES / "lost-key.yaml", "-o", "json")
    plain = {Path(one["url"]).name: one for one in audit(snaptool, *words, first=True).json["records"]}
    assert not plain["cut.db"]["census"], "what cannot be read is not counted unasked"
    ran = audit(snaptool, *words, "--salvage")
    found = {Path(one["url"]).name: one for one in ran.json["records"]}
    assert ran.json["kept"] == 1, "what is whole is not looked at again"
    assert [found[name]["status"] for name in sorted(found)] == ["damaged", "damaged", "damaged", "undecryptable"]
    assert found["nothing.db"]["salvaged"]["records"] == 0
    assert 0 < found["cut.db"]["salvaged"]["records"] < found["trailer.db"]["salvaged"]["records"]
    assert found["cut.db"]["keys_needed"]
    assert (found["trailer.db"]["census"], found["trailer.db"]["lost"]) == (found["whole.db"]["census"], 3)
    assert audit(snaptool, *words, "--salvage").json["kept"] == 4
    assert audit(snaptool, *words).json["kept"] == 4, "who asks for less has it"
    text = audit(snaptool, *words[:-2], "--salvage").stdout
    assert "of what can be saved: 3 lost" in text
    assert "could not be read whole" in text


# -- names


def test_records_are_text_whatever_files_are_called(snaptool: Snaptool) -> None:
    folder = snaptool.folder / "odd"
    folder.mkdir()
    names = (
        b"snapshot_\xff<b>.db",
        b"static_kuberesources_\xff<b>.tar.gz",
        b"x\xfe\x1b[2J\n.db",
        "\u202e.txt".encode(),
    )
    for name in names:
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(GOOD.read_bytes()[:20_000])
    ran = audit(
        snaptool,
        folder,
        "-o",
        "jsonl",
        "--html",
        snaptool.folder / "p.html",
        first=True,
        more=(snaptool.folder / "p.html",),
    )
    lines = ran.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        for text in texts(json.loads(line)):
            text.encode()  # no half of a pair, which others refuse to read
            assert text.isprintable(), text


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for one in value.values() for text in texts(one)]
    if isinstance(value, list):
        return [text for one in value for text in texts(one)]
    return [value] if isinstance(value, str) else []


def test_equal_files_are_said_as_they_come(snaptool: Snaptool, folder: Path) -> None:
    ran = audit(snaptool, folder, "--jobs", "1", "-o", "jsonl", first=True)
    found = [finding for line in ran.stdout.splitlines() for finding in json.loads(line)["findings"]]
    assert len([one for one in found if one.startswith("same_as:")]) == 1
