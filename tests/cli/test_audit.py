"""`snaptool audit`: cases by number, and situations of the field; docs/audit.md."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from snaptool.fleet.workers import Room, Seat, Workers
from tests.support.cli import GOLDEN, SAMPLES, Ran, Snaptool, assert_no_canary
from tests.support.links import serving

AESCBC = SAMPLES / "aescbc.yaml"
FIELD = GOLDEN / "audit"


def case(snaptool: Snaptool, name: str) -> Path:
    return Path(shutil.copytree(FIELD / name, snaptool.folder / name))


def audit(snaptool: Snaptool, *arguments: str | Path, first: bool = True) -> Ran:
    store = snaptool.folder / "store.db"
    return snaptool(
        *("audit", *arguments, "--store", store),
        makes=[store] if first else [],
        replaces=[] if first else [store],
    )


def by_name(ran: Ran) -> dict[str, dict[str, Any]]:
    return {Path(record["url"]).name: record for record in ran.json["records"]}


def rows(snaptool: Snaptool) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(snaptool.folder / "store.db")) as database:
        return database.execute("select url, version, question, status from result").fetchall()


def bucket(snaptool: Snaptool) -> Path:
    """One backup of each kind, and what else lies in buckets."""
    folder = snaptool.folder / "bucket"
    folder.mkdir()
    for sample in ("aescbc-cluster.db", "lost-key.db", "mixed-providers.db", "plaintext-cluster.db"):
        if (SAMPLES / sample).exists():
            shutil.copy2(SAMPLES / sample, folder)
    whole = (SAMPLES / "aescbc-cluster.db").read_bytes()
    (folder / "cut.db").write_bytes(whole[: len(whole) // 2])
    (folder / "flipped.db").write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
    (folder / "readme.txt").write_text("hello")
    (folder / "empty.db").write_bytes(b"")
    return folder


def test_situation_20_an_empty_etcd_and_the_same_file_twice_are_not_fine(snaptool: Snaptool) -> None:
    folder = case(snaptool, "20-audit-empty") / "bucket"
    ran = audit(snaptool, folder, "-o", "json")
    assert ran.code == 3
    records = by_name(ran)
    assert [records[name]["status"] for name in sorted(records)] == ["empty", "ok (not opened)", "ok (not opened)"]
    first, second = (records[f"etcd-snapshot-server1-{end}"] for end in ("1772355600", "1772359200"))
    assert first["findings"] == []
    assert second["findings"] == [f"same_as:{first['url']}"]
    text = audit(snaptool, folder, first=False)
    assert "1 empty (a whole etcd without one key of Kubernetes" in text.stdout


def test_situation_21_half_a_database_in_a_whole_gzip_shows_at_a_quick_look(snaptool: Snaptool) -> None:
    folder = case(snaptool, "21-half-in-gzip") / "store"
    ran = audit(snaptool, folder, "--check", "quick", "-o", "json")
    assert ran.code == 3
    records = ran.json["records"]
    assert [(one["status"], (one["error"] or {}).get("kind")) for one in records] == [
        ("ok", None),
        ("damaged", "snapshot_short"),
    ]
    assert "control" not in ran.text, "it is part of the store"


def test_a_damaged_backup_is_named_once_in_a_sentence_of_its_own(snaptool: Snaptool) -> None:
    folder = snaptool.folder / "bucket"
    folder.mkdir()
    whole = (GOLDEN / "containers/tar/charmed-plain.tar").read_bytes()
    (folder / "cut.tar").write_bytes(whole[: len(whole) // 2])
    (folder / "bad.db").write_bytes((SAMPLES / "aescbc-cluster.db").read_bytes()[:8192])
    ran = audit(snaptool, folder)
    assert "damaged  cut.tar is cut: it ends after" in ran.stdout
    assert "damaged  bad.db: the database is cut" in ran.stdout


def test_situation_24_what_is_one_backup_is_one_record(snaptool: Snaptool) -> None:
    folder = case(snaptool, "24-audit-directories") / "bucket"
    records = audit(snaptool, folder, "--embedded-config", "-o", "json").json["records"]
    assert [(one["platform"], one["status"], len(one["files"])) for one in records] == [
        ("gardener", "ok (not opened)", 4),
        ("openshift", "ok", 2),
    ]
    assert records[0]["etcd"]["revision"] == 18
    assert records[1]["opened_by"] == ["embedded"]


def test_case_1_every_status_is_as_it_was_made(snaptool: Snaptool) -> None:
    ran = audit(snaptool, bucket(snaptool), "--config", AESCBC, "-o", "json", "--jobs", "2")
    found = {name: record["status"] for name, record in by_name(ran).items()}
    assert found == {
        "aescbc-cluster.db": "ok",
        "cut.db": "damaged",
        "empty.db": "not_a_snapshot",
        "flipped.db": "damaged",
        "lost-key.db": "undecryptable",
        "mixed-providers.db": "undecryptable",
        "readme.txt": "not_a_snapshot",
    }
    assert ran.code == 3
    assert len(rows(snaptool)) == len(found)


def test_case_2_and_3_killed_workers_cost_an_attempt_and_the_third_death_a_record(tmp_path: Path) -> None:
    """Real processes, killed while they work: every job has one answer."""

    def work(job: int, _seat: Seat) -> str:
        died = tmp_path / f"{job}"
        if job == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        if job % 5 == 0 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return f"done {job}"

    answers = list(Workers(work, [1] * 40, count=2).run())
    assert Counter(answer.job for answer in answers) == Counter(range(40))
    for answer in answers:
        if answer.job == 7:
            assert (answer.result, answer.attempts) == (None, 3)
            assert answer.why == "a worker ended with -9, 3 times"
        else:
            assert answer.result == f"done {answer.job}"
            assert answer.attempts == (2 if answer.job % 5 == 0 else 1)


def test_a_worker_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    def work(job: int, _seat: Seat) -> int:
        while job == 1 and not (tmp_path / "never").exists():
            time.sleep(0.01)
        return job

    answers = {answer.job: answer for answer in Workers(work, [1, 1, 1], count=2, timeout=0.3).run()}
    assert (answers[1].result, answers[1].why) == (None, "the time for it was over, 3 times")
    assert (answers[0].result, answers[2].result) == (0, 2)


def test_case_4_a_killed_asker_leaves_whole_rows_and_the_next_run_adds_the_rest(snaptool: Snaptool) -> None:
    folder = snaptool.folder / "many"
    folder.mkdir()
    for number in range(30):
        shutil.copy2(SAMPLES / "aescbc-cluster.db", folder / f"n{number:02}.db")
    words = [sys.executable, "-m", "snaptool", "audit", str(folder), "--store", str(snaptool.folder / "store.db")]
    words += ["--config", str(AESCBC), "-o", "jsonl", "--jobs", "2"]
    asker = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert asker.stdout is not None
    for _ in range(5):
        assert asker.stdout.readline()
    children = Path(f"/proc/{asker.pid}/task/{asker.pid}/children").read_text().split()
    asker.kill()
    asker.wait()
    asker.stdout.close()
    assert len(children) == 2
    deadline = time.monotonic() + 30
    while any(map(_runs, children)):
        assert time.monotonic() < deadline, "workers end with the asking process"
        time.sleep(0.05)
    before = rows(snaptool)
    assert 5 <= len(before) <= 30
    ran = subprocess.run(words, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 30
    assert len({row[0] for row in rows(snaptool)}) == len(rows(snaptool)) == 30
    assert set(before) <= set(rows(snaptool))
    assert f"kept {len(before)}" in ran.stderr.decode()


def test_case_19_backups_that_are_downloaded_share_the_room(tmp_path: Path) -> None:
    """Room for two, four workers: files that they hold at a time show that there are never more."""

    class Small(Room):
        def free(self) -> int:
            return 250

    begun = tmp_path / "begun"
    begun.mkdir()

    def work(job: int, _seat: Seat) -> int:
        (begun / f"{job}").touch()
        (tmp_path / f"{job}").touch()
        while job == 0 and not (begun / "1").exists():
            time.sleep(0.01)  # the second is given out while the first is at work
        together = len(list(tmp_path.iterdir())) - 1
        (tmp_path / f"{job}").unlink()
        return together

    needs = [100] * 12 + [300]
    answers = list(Workers(work, needs, count=4, room=Small(tmp_path.parent, needs)).run())
    assert sorted(answer.job for answer in answers) == list(range(13))
    done = {answer.job: answer for answer in answers}
    assert {done[job].result for job in range(12)} <= {1, 2}
    assert (done[12].result, done[12].attempts) == (None, 0)
    assert "needs room for 300 bytes, and 250 may be taken" in done[12].why


def _runs(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_case_7_a_second_run_keeps_all_but_what_was_replaced(snaptool: Snaptool) -> None:
    folder = bucket(snaptool)
    audit(snaptool, folder, "--config", AESCBC)
    again = audit(snaptool, folder, "--config", AESCBC, "-o", "json", first=False)
    assert again.json["kept"] == 7
    before = len(rows(snaptool))
    shutil.copy2(SAMPLES / "aescbc-cluster.db", folder / "new")
    (folder / "new").rename(folder / "lost-key.db")
    ran = audit(snaptool, folder, "--config", AESCBC, "-o", "json", first=False)
    assert (ran.json["kept"], by_name(ran)["lost-key.db"]["status"]) == (6, "ok")
    assert len(rows(snaptool)) == before + 1
    assert audit(snaptool, folder, "--report-only", "-o", "json", first=False).json["kept"] == 7


def test_case_8_shards_look_at_everything_once_and_are_merged(snaptool: Snaptool) -> None:
    folder, results = bucket(snaptool), snaptool.folder / "results"
    words: tuple[str | Path, ...] = ("audit", folder, "--config", AESCBC, "--results", results)
    seen: list[str] = []
    made = []
    for index in range(3):
        before = set(results.rglob("*.jsonl"))
        ran = snaptool(*words, "--shard", f"{index}/3", "-o", "jsonl", makes=made_by(words, index, 3, results))
        seen += [json.loads(line)["url"] for line in ran.stdout.splitlines()]
        made += [path for path in results.rglob("*.jsonl") if path not in before]
        assert ran.code == 0, "findings are the report's matter"
    assert sorted(seen) == sorted(str(path) for path in folder.iterdir())
    store = snaptool.folder / "store.db"
    merged = snaptool("audit", "--merge", results, "--store", store, "-o", "json", makes=[store])
    assert merged.code == 3
    assert sorted(one["url"] for one in merged.json["records"]) == sorted(seen)
    assert len(rows(snaptool)) == len(seen)
    kept = made[1].read_bytes()
    made[1].unlink()
    ran = snaptool("audit", "--merge", results, "--store", store, replaces=[store])
    assert (ran.code, "1 of 3 shards have left no results: 1\n" in ran.stderr) == (1, True)
    made[1].write_bytes(kept)
    other = next(path for path in made if path.stat().st_size)  # which shards are empty is chance
    other.write_bytes(other.read_bytes().replace(b'"status": ', b'"stat": ', 1))
    ran = snaptool("audit", "--merge", results, "--store", store, replaces=[store])
    assert (ran.code, "line 1 is not a record of an audit" in ran.stderr) == (2, True)


def made_by(words: Sequence[str | Path], index: int, of: int, results: Path) -> list[Path]:
    """The file that a shard leaves."""
    from snaptool.fleet import Given, Question
    from snaptool.providers.config.held import read_configs

    content = Path(words[3]).read_bytes()
    (config,) = read_configs(content, name="a", strict=False).configs
    question = Question(check="keys", given=(Given(config, hashlib.sha256(content).hexdigest(), "a"),))
    return [results / question.digest / f"{index:05}-of-{of:05}.jsonl"]


def test_case_9_two_that_do_the_same_shard_leave_one_result(snaptool: Snaptool) -> None:
    folder = snaptool.folder / "many"
    folder.mkdir()
    for number in range(6):
        shutil.copy2(SAMPLES / "aescbc-cluster.db", folder / f"n{number}.db")
    results = snaptool.folder / "results"
    words = [sys.executable, "-m", "snaptool", "audit", str(folder), "--results", str(results), "--shard", "0/1"]
    both = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    said = [one.communicate()[1].decode() for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    (left,) = (path for path in results.rglob("*") if path.is_file())
    assert len(left.read_text().splitlines()) == 6
    third = subprocess.run(words, capture_output=True, check=False)
    assert (third.returncode, b"done already" in third.stderr) == (0, True)


def test_a_list_that_was_made_once_is_what_is_looked_at(snaptool: Snaptool) -> None:
    folder = bucket(snaptool)
    plan = snaptool.write("plan.jsonl", snaptool("audit", folder, "--list", "-o", "jsonl").stdout)
    (folder / "later.db").write_bytes(b"x")
    (folder / "readme.txt").unlink()
    ran = audit(snaptool, f"@{plan}", "--config", AESCBC, "-o", "json")
    found = by_name(ran)
    assert "later.db" not in found
    assert (found["readme.txt"]["status"], found["aescbc-cluster.db"]["status"], ran.code) == ("failed", "ok", 1)
    whole = audit(snaptool, folder / "aescbc-cluster.db", "--config", AESCBC, "-o", "json", first=False)
    assert whole.json["kept"] == 1, "it is the same question about the same version"
    plan.write_text('{"url": 1}\n')
    assert snaptool("audit", f"@{plan}", "--list").code == 2


def test_case_11_the_store_and_the_records_hold_no_key(snaptool: Snaptool) -> None:
    ran = audit(snaptool, bucket(snaptool), "--config", SAMPLES / "mixed.yaml", "-o", "jsonl", "--names")
    assert_no_canary(ran.stdout.encode())
    store = snaptool.folder / "store.db"
    assert_no_canary(store.read_bytes())
    assert store.stat().st_mode & 0o777 == 0o600


def test_case_14_a_backup_replaced_after_it_was_listed_is_looked_at_in_its_new_version(tmp_path: Path) -> None:
    from snaptool.fleet import Places, Question
    from snaptool.fleet.looking import look

    path = tmp_path / "a.db"
    shutil.copy2(SAMPLES / "lost-key.db", path)
    (listed,) = Places().find(str(path)).backups
    path.unlink()
    shutil.copy2(SAMPLES / "aescbc-cluster.db", path)
    record = look(listed, Question(check="census"))
    (now,) = Places().find(str(path)).backups
    assert record["version"] == now.version != listed.version
    path.unlink()
    gone = look(listed, Question(check="census"))
    assert (gone["status"], gone["error"]["kind"]) == ("failed", "cannot_read")


def test_case_15_what_else_lies_in_a_bucket_does_no_harm(snaptool: Snaptool) -> None:
    folder = snaptool.folder / "bucket"
    folder.mkdir()
    shutil.copy2(SAMPLES / "aescbc-cluster.db", folder / "a.db")
    import gzip

    digest = hashlib.sha256((folder / "a.db").read_bytes()).hexdigest()
    (folder / "a.db.sha256").write_text(f"{digest}  a.db\n")
    (folder / "notes.gz").write_bytes(gzip.compress(b"hello"))
    (folder / "nothing").write_bytes(b"")
    ran = audit(snaptool, folder, "--config", AESCBC, "-o", "json")
    assert ran.code == 0
    assert {name: one["status"] for name, one in by_name(ran).items()} == {
        "a.db": "ok",
        "a.db.sha256": "not_a_snapshot",
        "notes.gz": "not_a_snapshot",
        "nothing": "not_a_snapshot",
    }
    assert by_name(ran)["a.db"]["findings"] == ["checksum_ok"]
    assert audit(snaptool, folder, "--config", AESCBC, "-q", first=False).text == "", "cron has nothing to send"
    assert ran.json["backups"] == 1


def test_case_20_what_was_not_seen_wins_over_what_was_found(snaptool: Snaptool) -> None:
    folder = bucket(snaptool)
    lost: list[str | Path] = ["--config", AESCBC, "--newest", "1", "--per", "lost-key"]
    assert audit(snaptool, folder / "lost-key.db", *lost).code == 3
    only = folder / "lost-key.db"
    assert audit(snaptool, only, *lost, "--fail-on", "damaged", first=False).code == 0
    orphan = folder / "locked.db.gpg"
    orphan.write_bytes(b"Salted__12345678" + bytes(64))
    ran = audit(snaptool, folder, "--config", AESCBC, "-o", "json", first=False)
    assert (by_name(ran)["locked.db.gpg"]["status"], ran.code) == ("failed", 1)


def test_case_21_a_key_that_no_row_names_is_not_missed_and_one_that_is_named_is(snaptool: Snaptool) -> None:
    backup = snaptool.sample("aescbc-cluster.db")
    other = SAMPLES / "lost-key.yaml"
    both = audit(snaptool, backup, "--config", AESCBC, "--config", other, "-o", "json")
    needed = {key["config"] for key in both.json["keys"]}
    assert needed == {str(AESCBC)}
    assert audit(snaptool, backup, "--config", AESCBC, "-o", "json", first=False).json["counts"] == both.json["counts"]
    without = audit(snaptool, backup, "--config", other, "-o", "json", first=False)
    assert without.json["counts"] == {"undecryptable": 1}
    assert without.code == 3


def test_case_22_a_store_of_another_kind_is_refused_before_anything_is_read(snaptool: Snaptool) -> None:
    backup = snaptool.sample("aescbc-cluster.db")
    store = snaptool.folder / "store.db"
    with closing(sqlite3.connect(store)) as database:
        database.execute("pragma user_version = 99")
    ran = snaptool("audit", backup, "--store", store)
    assert (ran.code, ran.stdout) == (2, "")
    assert "newer snaptool" in ran.stderr
    assert snaptool("audit", backup, "--store", backup).code == 1, "a backup is not a store"
    ran = snaptool("audit", backup, "--store", snaptool.folder / "no" / "store.db")
    assert (ran.code, ran.stdout) == (1, "")


def test_newest_takes_one_of_each_series(snaptool: Snaptool) -> None:
    folder = snaptool.folder / "bucket"
    folder.mkdir()
    names = [f"etcd-snapshot-server{server}-17723520{second:02}" for server in (1, 2) for second in (0, 30, 60)]
    for name in names:
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (1, 1))
    ran = snaptool("audit", folder, "--list", "--newest", "1", "-o", "json")
    assert [Path(one["url"]).name for one in ran.json["backups"]] == [names[2], names[5]]
    ran = snaptool("audit", folder, "--list", "--newest", "1", "--per", "prefix", "-o", "json")
    assert len(ran.json["backups"]) == 1
    assert snaptool("audit", folder, "--list", "--newest", "1", "--per", "(", "-o", "json").code == 2


@pytest.mark.parametrize("words", [["nothing-*.db"], ["ftp://host/*.db"], []])
def test_nothing_to_look_at_is_wrong_usage(snaptool: Snaptool, words: list[str]) -> None:
    assert snaptool("audit", *words, "--list").code == 2


def test_links_are_read_in_one_version_and_never_shown_whole(snaptool: Snaptool) -> None:
    whole = (SAMPLES / "aescbc-cluster.db").read_bytes()
    with serving() as files:
        files.content = {"/a.db": whole, "/b.db": whole[:9000], "/long.db": whole + bytes(1 << 20)}
        urls = [f"{files.url}{name}?signature=s3cr3t" for name in files.content]
        ran = audit(snaptool, *urls, "--config", AESCBC, "-o", "json")
        shown = [f"{files.url}{name}?…" for name in files.content]
        assert [one["url"] for one in ran.json["records"]] == shown
        assert [one["status"] for one in ran.json["records"]][:2] == ["ok", "damaged"]
        assert "s3cr3t" not in ran.text
        assert b"s3cr3t" not in (snaptool.folder / "store.db").read_bytes()
        files.content["/b.db"] = whole
        again = audit(snaptool, *urls, "--config", AESCBC, "-o", "json", first=False)
        assert (again.json["kept"], again.json["records"][1]["status"]) == (2, "ok")
        files.asked.clear()
        quick = audit(snaptool, urls[2], "--check", "quick", "-o", "json", first=False)
        assert quick.json["records"][0]["status"] == "ok"
        assert [headers["range"] for _, _, headers in files.asked] == ["bytes=0-0", "bytes=0-131071"]
        text = audit(snaptool, urls[0], "--config", SAMPLES / "lost-key.yaml", first=False)
        assert "snaptool verify with the link itself" in text.stdout
        assert snaptool("audit", urls[0], "--scheduler", "tcp://127.0.0.1:1", "--timeout", "3").code == 2


def test_a_folder_that_cannot_be_read_is_said_and_the_others_are_looked_at(
    snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `lost+found` on a volume. Root reads everything, so that the system's refusal is put in its place."""
    folder = snaptool.folder / "bucket"
    (folder / "lost+found").mkdir(parents=True)
    shutil.copy2(SAMPLES / "aescbc-cluster.db", folder / "a.db")
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr("snaptool.fleet.places.os.scandir", scandir)
    ran = audit(snaptool, folder, "--config", AESCBC, "-o", "json")
    listed = snaptool("audit", folder, "--list")
    monkeypatch.undo()
    assert {name: one["status"] for name, one in by_name(ran).items()} == {"a.db": "ok", "lost+found": "failed"}
    assert (listed.code, "lost+found: cannot be read" in listed.stderr) == (1, True)
    assert ran.code == 1


def test_a_sample_finds_a_lost_key(snaptool: Snaptool) -> None:
    backup = snaptool.sample("lost-key.db")
    ran = audit(snaptool, backup, "--config", SAMPLES / "lost-key.yaml", "--check", "sample=1", "-o", "json")
    (record,) = ran.json["records"]
    assert record["status"] == "undecryptable"
    assert record["lost"] > 0


def test_the_table_says_which_key_is_needed_and_how_far_that_reaches(snaptool: Snaptool) -> None:
    backup = snaptool.sample("lost-key.db")
    ran = audit(snaptool, backup, "--config", SAMPLES / "lost-key.yaml")
    assert "(none)" in ran.stdout
    assert "the living cluster and copies elsewhere: not looked at" in ran.stdout
    assert f"snaptool verify {backup} --config" in ran.stdout
    quick = audit(snaptool, backup, "--check", "quick", "-o", "json", first=False)
    assert "does not say that a key may be destroyed" in quick.json["reach"]


def test_the_manifests_of_the_documentation_are_commands_that_run(
    snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every argument that the manifests give is parsed by the command itself."""
    text = (SAMPLES.parent / "docs" / "audit.md").read_text()
    manifests = [yaml.safe_load(part) for part in re.findall(r"(?s)```yaml\n(.*?)```", text)]
    assert [one["kind"] for one in manifests] == ["CronJob", "Job"]
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "7")
    folder = snaptool.folder / "backups"
    folder.mkdir()
    shutil.copy2(SAMPLES / "aescbc-cluster.db", folder)
    cron = next(line for line in text.splitlines() if line.startswith("15 3 * * *  backup")).split()[6:]
    assert cron[0] == "snaptool"
    specs = [manifests[0]["spec"]["jobTemplate"]["spec"]["template"]["spec"], manifests[1]["spec"]["template"]["spec"]]
    commands = [cron[1:], specs[0]["containers"][0]["args"]]
    commands.append(specs[1]["containers"][0]["args"])
    for spec in specs:
        mounted = {one["name"] for one in spec["containers"][0]["volumeMounts"]}
        assert mounted == {one["name"] for one in spec["volumes"]}
    for words in commands:
        here = [str(folder) if word == "/work" or word.startswith(("/backups", "s3://b")) else word for word in words]
        here = [str(AESCBC) if word.endswith(".yaml") else word for word in here]
        assert snaptool(*here, "--list").code == 0, words
