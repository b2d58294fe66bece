"""The library's front door: one function for each command, typed, checked at the door; importing it is cheap."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import snaptool
from snaptool.cli import cli
from tests.support.cli import SAMPLES

SOURCE, OLD, NEW = (SAMPLES / name for name in ("aescbc-cluster.db", "aescbc.yaml", "secretbox.yaml"))
LOST, LOST_CONFIG = SAMPLES / "lost-key.db", SAMPLES / "lost-key.yaml"
COMMANDS = {"list": "list_keys"}
WITHOUT_CALL = {"config", "kms", "scratch", "audit", "help"}


def test_every_public_name_can_be_imported() -> None:
    for name in snaptool.__all__:
        assert getattr(snaptool, name) is not None
    assert sorted(snaptool.__all__) == list(snaptool.__all__)
    assert set(snaptool.__all__) <= set(dir(snaptool))


def test_every_command_has_a_function_of_its_name() -> None:
    commands = set(cli.list_commands(None)) - WITHOUT_CALL  # type: ignore[arg-type]  # the context is not looked at
    assert {COMMANDS.get(name, name) for name in commands} <= set(snaptool.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(snaptool, "no_such_name")


def test_importing_the_package_and_asking_for_help_loads_no_heavy_module() -> None:
    heavy = "{'numpy', 'yaml', 'json', 'subprocess', 'traceback', 'cryptography', 'snaptool.operations'}"
    code = f"import sys, snaptool.cli; snaptool.cli.run(['--help']); print(sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.endswith("[]\n")


def test_rewrite_by_paths_with_progress(tmp_path: Path) -> None:
    steps: list[str] = []

    def progress(step: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        steps.append(step)

    target = tmp_path / "new.db"
    report = snaptool.rewrite(SOURCE, target, config=OLD, new_config=NEW, progress=progress)
    assert report.verified
    assert report.records.rewritten == 11
    assert list(dict.fromkeys(steps)) == ["reading", "writing", "verifying", "publishing"]
    survey = snaptool.inspect(target, NEW)
    assert {row.provider for row in survey.census if row.resource == "secrets"} == {"secretbox"}
    assert survey.lost == ()
    assert not snaptool.diff(SOURCE, target, config_a=OLD, config_b=NEW).differs


@pytest.mark.parametrize("form", [str, Path, Path.read_bytes, snaptool.open_snapshot])
def test_a_snapshot_is_a_path_bytes_or_opened(form: Callable[[Path], Any]) -> None:
    assert snaptool.inspect(form(SOURCE), OLD).etcd.records == snaptool.inspect(SOURCE).etcd.records


@pytest.mark.parametrize(
    "form",
    [
        str,
        Path,
        Path.read_bytes,
        lambda path: [path],
        lambda path: snaptool.parse_config(path.read_bytes()),
        lambda path: snaptool.Keyring((snaptool.parse_config(path.read_bytes()),)),
    ],
)
def test_a_configuration_is_a_path_bytes_parsed_or_a_keyring(form: Callable[[Path], Any]) -> None:
    assert snaptool.verify(SOURCE, form(OLD)).opened == 11


def test_a_keyring_is_taken_to_rewrite_with(tmp_path: Path) -> None:
    old, new = (snaptool.Keyring((snaptool.parse_config(path.read_bytes()),)) for path in (OLD, NEW))
    with snaptool.open_snapshot(SOURCE) as opened:
        report = snaptool.rewrite(opened, tmp_path / "new.db", snaptool.RewriteRequest(reading=old, writing=new))
        assert opened.snapshot.record_count == report.records.total, "what was passed opened stays open"


def test_get_history_list_and_repair(tmp_path: Path) -> None:
    found = snaptool.get(SOURCE, "secret", "smtp", namespace="shop", config=OLD)
    assert found.object["metadata"]["name"] == "smtp"
    assert (found.provider, found.key_name, found.live) == ("aescbc", "key1", True)
    assert str(found.object["data"]["password"]) not in repr(found)
    assert snaptool.get(SOURCE, found.key, config=OLD) == found
    assert snaptool.history(SOURCE, "secret/smtp", namespace="shop", config=OLD).entries[-1].revision.main == (
        found.revision
    )
    names = [row.name for row in snaptool.list_keys(SOURCE, "secrets", namespace="shop")]
    assert "smtp" in names
    assert names == sorted(names)
    assert {row.resource for row in snaptool.list_keys(LOST, config=LOST_CONFIG, lost=True)} == {"secrets"}
    assert snaptool.repair(SOURCE, tmp_path / "whole.db").verified


def test_lost_values_stop_by_word_and_by_member(tmp_path: Path) -> None:
    target = tmp_path / "new.db"
    for word in ("stop", snaptool.Undecryptable.STOP):
        report = snaptool.rewrite(LOST, target, config=LOST_CONFIG, new_config=NEW, undecryptable=word)
        assert report.stopped
        assert not target.exists()
    request = snaptool.RewriteRequest(
        reading=snaptool.Keyring((snaptool.parse_config(LOST_CONFIG.read_bytes()),)),
        writing=snaptool.Keyring((snaptool.parse_config(NEW.read_bytes()),)),
        undecryptable="stop",  # type: ignore[arg-type]  # what people write
    )
    assert snaptool.rewrite(LOST, target, request).stopped
    assert not target.exists()
    assert snaptool.rewrite(LOST, target, config=LOST_CONFIG, new_config=NEW, undecryptable="delete").deletions


WRONG_WORDS: list[dict[str, Any]] = [
    {"undecryptable": "Stop"},
    {"undecryptable": "drop"},
    {"undecodable": ""},
    {"jobs": 0},
]


@pytest.mark.parametrize("wrong", WRONG_WORDS, ids=str)
def test_other_words_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="has to be") as refused:
        snaptool.rewrite(SOURCE, tmp_path / "new.db", config=OLD, new_config=NEW, **wrong)
    assert isinstance(refused.value, snaptool.UnknownWord)
    assert list(tmp_path.iterdir()) == []


WRONG_TYPES: list[Callable[[Path], object]] = [
    lambda _: snaptool.inspect(5),  # type: ignore[arg-type]
    lambda _: snaptool.inspect(None),  # type: ignore[arg-type]
    lambda _: snaptool.inspect(SOURCE, 5),  # type: ignore[arg-type]
    lambda _: snaptool.inspect(SOURCE, [OLD, None]),  # type: ignore[list-item]
    lambda _: snaptool.inspect(SOURCE, jobs="2"),  # type: ignore[arg-type]
    lambda _: snaptool.inspect(SOURCE, prefixes=5),  # type: ignore[arg-type]
    lambda _: snaptool.verify(SOURCE, live_only="yes"),  # type: ignore[arg-type]
    lambda _: snaptool.list_keys(SOURCE, 5),  # type: ignore[arg-type]
    lambda _: snaptool.get(SOURCE, b"/registry/secrets/shop/smtp"),  # type: ignore[arg-type]
    lambda _: snaptool.get(SOURCE, "secret", "smtp", namespace=5),  # type: ignore[arg-type]
    lambda _: snaptool.history(SOURCE, 5),  # type: ignore[arg-type]
    lambda _: snaptool.diff(SOURCE, 5),  # type: ignore[arg-type]
    lambda _: snaptool.rewrite(SOURCE, 5, config=OLD, new_config=NEW),  # type: ignore[arg-type]
    lambda folder: snaptool.rewrite(SOURCE, folder / "new.db", OLD, new_config=NEW),  # type: ignore[arg-type]
    lambda folder: snaptool.rewrite(SOURCE, folder / "new.db", config=OLD, new_config=NEW, force=1),  # type: ignore[arg-type]
    lambda folder: snaptool.rewrite(SOURCE, folder / "new.db", config=OLD, new_config=NEW, undecryptable=None),  # type: ignore[arg-type]
    lambda folder: snaptool.rewrite(SOURCE, folder / "new.db", config=OLD, new_config=NEW, decrypt="no"),  # type: ignore[arg-type]
    lambda _: snaptool.repair(SOURCE, None),  # type: ignore[arg-type]
    lambda folder: snaptool.export(SOURCE, folder / "x.yaml", namespaces=5, config=OLD),  # type: ignore[arg-type]
    lambda _: snaptool.open_snapshot(5),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("call", WRONG_TYPES)
def test_wrong_types_are_type_errors_that_say_what_is_wanted(tmp_path: Path, call: Callable[[Path], object]) -> None:
    with pytest.raises(TypeError, match="and has to be") as refused:
        call(tmp_path)
    assert isinstance(refused.value, snaptool.SnaptoolError)
    assert list(tmp_path.iterdir()) == []


def test_what_order_could_mix_up_goes_by_keyword() -> None:
    for name in ("inspect", "verify", "list_keys", "get", "history", "diff", "rewrite", "repair", "export"):
        parameters = inspect.signature(getattr(snaptool, name)).parameters.values()
        positional = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        assert len(positional) <= 3
        assert not {"config_a", "new_config", "namespace", "undecryptable", "force"} & set(positional)


def test_rewrite_without_saying_how_or_with_both_is_refused(tmp_path: Path) -> None:
    for words in ({}, {"new_config": NEW, "decrypt": True}):
        with pytest.raises(snaptool.InputError, match=r"new_config (or|and) decrypt"):
            snaptool.rewrite(SOURCE, tmp_path / "new.db", config=OLD, **words)  # type: ignore[arg-type]


def test_what_a_call_reads_is_never_its_target(tmp_path: Path) -> None:
    source, old, new, earlier = (
        Path(shutil.copy(path, tmp_path)) for path in (LOST, LOST_CONFIG, NEW, SAMPLES / "mixed-providers.db")
    )
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    link = tmp_path / "link.yaml"
    link.hardlink_to(old)
    calls: list[Callable[[Path], object]] = [
        lambda to: snaptool.rewrite(source, to, config=old, new_config=new, undecryptable="keep", force=True),
        lambda to: snaptool.rewrite(
            source, to, config=[old], new_config=new, undecryptable="older", older_from=[earlier], force=True
        ),
        lambda to: snaptool.export(source, to, namespaces="shop", config=old, undecryptable="skip", force=True),
        lambda to: snaptool.repair(source, to, force=True),
    ]
    refused = [(0, old), (0, new), (0, link), (0, source), (1, earlier), (2, old), (2, link), (3, source)]
    for number, target in refused:
        with pytest.raises(snaptool.InputError, match="same file"):
            calls[number](target)
    assert {path: path.read_bytes() for path in before} == before
    # Another call does not read it, and may replace it.
    assert snaptool.repair(source, earlier, force=True).verified
