"""Help fits 80 columns, and who mistypes, or puts words in another order, is told what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from snaptool.cli import cli
from tests.support.cli import SAMPLES, Snaptool

_WIDTH = 80


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, (*path, name))


EVERY = sorted(commands(cli))


@pytest.fixture
def eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(_WIDTH))


@pytest.mark.usefixtures("eighty")
@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_help_fits_80_columns_and_cuts_nothing(snaptool: Snaptool, path: tuple[str, ...]) -> None:
    text = snaptool(*path, "--help").stdout
    assert [line for line in text.splitlines() if len(line) > _WIDTH] == []
    assert "..." not in text.partition("Commands:")[2]


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_option_has_a_sentence(path: tuple[str, ...]) -> None:
    command: click.Command = cli
    for word in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, parameter.name
            assert re.match(r"[A-Z]|auto: |direct: |new: |redact: |\*\.|--etcd-prefix|JSON", parameter.help), parameter
            assert not re.search(r"\banew\b|in clear|\bbe it\b|none of its|say --", parameter.help), parameter.help


@pytest.mark.usefixtures("eighty")
def test_options_that_belong_together_stand_together(snaptool: Snaptool) -> None:
    text = snaptool("rewrite", "--help").stdout
    head, _, rest = text.partition("\nOptions for KMS plugins:\n")
    kms, _, around = rest.partition("\nOptions for what is around a snapshot:\n")
    assert "--kms-" not in head
    assert {"--kms-lost", "--kms-rate", "--dek-file"} <= set(re.findall(r"--[a-z-]+", kms))
    assert {"--entry", "--max-unpacked", "--omni-key-file"} <= set(re.findall(r"--[a-z-]+", around))
    assert "--new-config" in head


def test_all_namespaces_is_taken_and_not_shown_where_it_is_the_default(snaptool: Snaptool) -> None:
    source = snaptool.sample("aescbc-cluster.db")
    assert "--all-namespaces" not in snaptool("list", "--help").stdout
    assert snaptool("list", source, "secrets", "-A").stdout == snaptool("list", source, "secrets").stdout


def test_help_of_a_command_by_word(snaptool: Snaptool) -> None:
    assert snaptool("help").stdout == snaptool("--help").stdout
    assert snaptool("help", "rewrite").stdout == snaptool("rewrite", "--help").stdout
    assert snaptool("help", "config", "new").stdout == snaptool("config", "new", "--help").stdout


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["inspct", "x.db"], "`inspect`"),
        (["rewrit", "a", "b"], "`rewrite`"),
        (["Verify", "x.db"], "`verify`"),
        (["ls", "x.db"], "`list`"),
        (["describe", "x.db"], "`get`"),
        (["decrypt", "x.db"], "`rewrite`"),
        (["help", "repiar"], "`repair`"),
        (["config", "chek", "x.yaml"], "check"),
        (["frobnicate"], "`snaptool --help` lists the commands"),
    ],
)
def test_a_command_that_is_none_is_answered_with_what_was_meant(
    snaptool: Snaptool, words: list[str], meant: str
) -> None:
    ran = snaptool(*words)
    assert ran.code == 2
    assert meant in ran.stderr


@pytest.mark.parametrize("command", ["list", "get", "history"])
@pytest.mark.parametrize(("word", "meant"), [("secert", "secret"), ("confgmaps", "configmaps"), ("depoly", "deploy")])
def test_a_type_that_is_none_is_answered_with_what_was_meant(
    snaptool: Snaptool, command: str, word: str, meant: str
) -> None:
    source = snaptool.sample("aescbc-cluster.db")
    ran = snaptool(command, source, word, *([] if command == "list" else ["x"]))
    assert ran.code == 2
    assert f"did you mean {meant}" in ran.stderr


def test_arguments_in_the_wrong_order_are_recognised(snaptool: Snaptool) -> None:
    source = snaptool.sample("aescbc-cluster.db")
    cases: list[tuple[list[str | Path], str]] = [
        ([source, "inspect"], f"snaptool inspect {source}"),
        (
            ["get", "secret", "smtp", source, "-n", "shop"],
            f"SNAPSHOT comes first: `snaptool get {source} secret smtp -n shop`",
        ),
        (["list", "secrets", source], f"SNAPSHOT comes first: `snaptool list {source} secrets`"),
        (["history", "secret/smtp", source], f"SNAPSHOT comes first: `snaptool history {source} secret/smtp`"),
        (
            ["rewrite", "new.db", source, "--decrypt", "--jobs", "2"],
            f"SOURCE comes first: `snaptool rewrite {source} new.db --decrypt --jobs 2`",
        ),
        (["repair", "new.db", source], f"SOURCE comes first: `snaptool repair {source} new.db`"),
    ]
    for words, right in cases:
        ran = snaptool(*words)
        assert ran.code == 2
        assert right in ran.stderr


def test_a_misspelled_source_is_not_answered_with_the_target(
    snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(snaptool.folder)
    snaptool.sample("aescbc-cluster.db", "backup.db")
    snaptool.sample("aescbc-cluster.db", "earlier-result.db")
    ran = snaptool("rewrite", "bakcup.db", "earlier-result.db", "--decrypt")
    assert "did you mean backup.db?" in ran.stderr
    assert "comes first" not in ran.stderr
    forms = [
        ["rewrite", "snap.db", "earlier-result.db", "--decrypt", "--force"],
        ["rewrite", "backups/snap.db", "earlier-result.db", "--decrypt"],
        ["diff", "snap.db", "earlier-result.db"],
        ["inspect", "snap.db"],
    ]
    for words in forms:
        ran = snaptool(*words)
        assert ran.code == 2
        assert "comes first" not in ran.stderr
        assert "check the spelling of the path" in ran.stderr
    ran = snaptool("rewrite", "snap.db", "earlier-result.db", "--decrypt")
    assert "if earlier-result.db is the one to read: SOURCE comes first" in ran.stderr
    ran = snaptool("inspect", "backup.db", "--config", "snap.yaml")
    assert "comes first" not in ran.stderr


def test_a_snapshot_that_is_not_there_stays_that(snaptool: Snaptool) -> None:
    ran = snaptool("get", "no-such.db", "secret", "smtp")
    assert "check the spelling" in ran.stderr
    ran = snaptool("get", "no-such.db", "secret", "smtp", "-o", "json")
    assert ran.json["error"]["code"] == "cannot_read"


def test_a_configuration_in_the_place_of_a_snapshot_is_named(snaptool: Snaptool) -> None:
    config = snaptool.sample("aescbc.yaml")
    forms: list[list[str | Path]] = [
        ["inspect", config],
        ["list", config, "secrets"],
        ["rewrite", config, "x.db", "--decrypt"],
    ]
    for words in forms:
        ran = snaptool(*words)
        assert "EncryptionConfiguration" in ran.stderr
        assert "--config" in ran.stderr


def test_an_empty_namespace_says_where_there_is_something(snaptool: Snaptool) -> None:
    source = snaptool.sample("aescbc-cluster.db")
    forms: list[list[str | Path]] = [["list", source, "secrets"], ["get", source, "secrets"], ["list", source]]
    for words in forms:
        ran = snaptool(*words, "-n", "no-such")
        assert "in namespace no-such; there are some in " in ran.stderr
        assert "shop" in ran.stderr
    assert "no deployments.apps in this snapshot" in snaptool("list", source, "deploy").stderr


def test_diff_takes_one_configuration_for_both(snaptool: Snaptool) -> None:
    source, config = snaptool.sample("aescbc-cluster.db"), snaptool.sample("aescbc.yaml")
    copy = snaptool.folder / "again.db"
    snaptool("rewrite", source, copy, "-c", config, "--new-config", config, makes=[copy])
    assert snaptool("diff", source, copy, "-c", config).code == 0
    new, other = snaptool.sample("secretbox.yaml"), snaptool.folder / "other.db"
    snaptool("rewrite", source, other, "-c", config, "--new-config", new, makes=[other])
    assert snaptool("diff", source, other, "-c", config, "-c", new).code == 0
    assert snaptool("diff", source, other, "--config-b", new, "-c", config).code == 0
    assert snaptool("diff", source, other, "-c", config).code == 3


def test_quiet_is_quiet(snaptool: Snaptool) -> None:
    source, old, new = (snaptool.sample(name) for name in ("aescbc-cluster.db", "aescbc.yaml", "secretbox.yaml"))
    target = snaptool.folder / "new.db"
    ran = snaptool("rewrite", source, target, "-q", "-c", old, "--new-config", new, makes=[target])
    assert (ran.code, ran.text) == (0, "")
    whole = snaptool.folder / "whole.db"
    assert snaptool("repair", source, whole, "-q", makes=[whole]).text == ""
    assert snaptool("verify", target, "-q", "-c", new).text == ""
    lost, partial = snaptool.sample("lost-key.db"), snaptool.sample("lost-key.yaml")
    stopped = snaptool("rewrite", lost, "none.db", "-q", "-c", partial, "--new-config", new)
    assert stopped.code == 3
    assert "nothing was written" in stopped.stdout


def test_a_source_that_cannot_be_looked_at_is_an_error_like_others(snaptool: Snaptool) -> None:
    """Looking for what was meant must not fail where the command did."""
    ran = snaptool("rewrite", snaptool.folder / ("n" * 300), snaptool.folder / "new.db", "--decrypt")
    assert ran.code == 2
    assert "File name too long" in ran.stderr


@pytest.mark.parametrize("words", [[], ["config"], ["kms"]])
def test_a_command_alone_prints_its_help_line_by_line(snaptool: Snaptool, words: list[str]) -> None:
    ran = snaptool(*words)
    assert ran.code == 2
    lines = ran.stderr.splitlines()
    assert lines[0].startswith("Usage: snaptool")
    assert "Commands:" in lines
    assert "\\n" not in ran.stderr


def test_a_custom_type_without_definition_is_known_by_its_objects(snaptool: Snaptool) -> None:
    source = snaptool.sample("aescbc-cluster.db")
    for word in ("widget", "wigdets"):
        ran = snaptool("get", source, word, "-n", "shop")
        assert (ran.code, "did you mean widgets.example.com?" in ran.stderr) == (2, True)


def test_a_name_that_is_misspelled_is_answered_with_what_was_meant(snaptool: Snaptool) -> None:
    ran = snaptool("get", snaptool.sample("aescbc-cluster.db"), "secret", "smpt", "-n", "shop")
    assert (ran.code, "did you mean smtp?" in ran.stderr) == (2, True)
    assert "payment" not in ran.stderr


def test_the_next_command_does_not_write_over_its_source(snaptool: Snaptool) -> None:
    source = snaptool.sample("lost-key.db", "new.db")
    out = snaptool("inspect", source, "--config", SAMPLES / "lost-key.yaml").stdout
    assert f"snaptool rewrite {source} newer.db" in out
