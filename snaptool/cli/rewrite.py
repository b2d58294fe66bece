"""`snaptool rewrite` and `snaptool repair`: the two commands that write a snapshot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snaptool.cli import options
from snaptool.cli.command import Command
from snaptool.cli.embedded import Embedding, embedded_options
from snaptool.cli.render import Terminal, json_text
from snaptool.cli.rewritten import Again, document, finish
from snaptool.cli.salvaged import finish_salvage
from snaptool.cli.verdict import reading_words
from snaptool.errors import InputError, OutputError, SnaptoolError
from snaptool.stores import shown
from snaptool.text import quoted

if TYPE_CHECKING:
    from snaptool.embedded.found import Recovered
    from snaptool.embedded.update import Updates
    from snaptool.files import Draft
    from snaptool.operations.choices import Choices
    from snaptool.operations.kms_options import KmsOptions
    from snaptool.operations.platform import Step
    from snaptool.operations.rewrite import RewriteReport
    from snaptool.sources import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteOptions:
    """What was said of a rewrite, as the command line reads it; `snaptool rewrite --help` says what it means."""

    source: Path
    target: Path
    configs: tuple[str, ...]
    new_configs: tuple[str, ...]
    embedding: Embedding
    update_embedded: bool
    keep_embedded: bool
    embedded_lost: bool
    decrypt: bool
    undecryptable: str
    older_from: tuple[Path, ...]
    undecodable: str
    allow_plaintext: bool
    allow_uncovered: bool
    rewrap: bool
    compact: bool
    engine_name: str
    boot_check: bool
    etcd_bin: Path | None
    dry_run: bool
    report: Path | None
    container: str
    force: bool
    skip_hash_check: bool
    prefixes: tuple[str, ...]
    jobs: int
    kms: KmsOptions
    output: str

    @property
    def by_etcd(self) -> bool:
        """Is the other engine asked for?"""
        return self.engine_name == "etcd"

    @property
    def choices(self) -> Choices:
        """What was said, as the library has it."""
        from snaptool.operations.choices import Choices
        from snaptool.operations.plan import Undecodable, Undecryptable

        return Choices(
            config=bool(self.configs) or self.embedding.wanted,
            new_config=bool(self.new_configs),
            older_from=bool(self.older_from),
            decrypt=self.decrypt,
            undecryptable=Undecryptable(self.undecryptable),
            undecodable=Undecodable(self.undecodable),
            allow_plaintext=self.allow_plaintext or self.allow_uncovered,
            compact=self.compact,
            rewrap=self.rewrap,
            update_embedded=self.update_embedded,
            keep_embedded=self.keep_embedded,
            embedded_lost=self.embedded_lost,
            token=self.embedding.token,
            container=options.container(self.container),
            skip_hash_check=self.skip_hash_check,
            jobs=self.jobs,
            kms=self.kms,
        )


@click.command("rewrite", cls=Command)
@options.snapshot_argument("source", "SOURCE")
@options.target_argument
@options.config_option()
@options.config_option(
    "--new-config", "EncryptionConfiguration to write with; repeated where API servers have one each; - is stdin."
)
@embedded_options
@click.option(
    "--update-embedded",
    is_flag=True,
    help="Write the new configuration into what the backup carries inside (k3s, RKE2: with --token-file; RKE1, "
    "Omni: in a target of the same container).",
)
@click.option(
    "--keep-embedded", is_flag=True, help="Leave the old configuration there, for another way to the servers."
)
@click.option(
    "--embedded-lost",
    is_flag=True,
    help="Confirm that what is closed inside the snapshot will never open: values that it may hold the keys of may go.",
)
@click.option("--decrypt", is_flag=True, help="Write every value as plaintext.")
@click.option(
    "--undecryptable",
    type=click.Choice(["stop", "keep", "older", "delete"]),
    default="stop",
    show_default=True,
    help="What to do with values that no key opens: stop (list them, write nothing), keep (copy as they are), "
    "older (give the object its newest older revision that opens, and delete the others), delete (drop their keys).",
)
@click.option(
    "--older-from",
    "older_from",
    metavar="SNAPSHOT",
    multiple=True,
    type=options.Place(),
    help="Earlier backup of the same cluster that older revisions may come from; repeated, newest first.",
)
@click.option(
    "--undecodable",
    type=click.Choice(["keep", "stop", "delete"]),
    default="keep",
    show_default=True,
    help="What to do with values that open, and that no API server can decode: keep (with a warning: lists of these "
    "resources fail), stop (list them, write nothing), delete (drop their keys). Ciphertext that only lost its header "
    "is mended.",
)
@click.option(
    "--allow-plaintext",
    is_flag=True,
    help="Let encrypted values become plaintext where the new configuration has no entry for them, or identity first.",
)
@click.option("--allow-uncovered", is_flag=True, hidden=True)
@click.option("--rewrap", is_flag=True, help="KMS: rewrap the data keys; leave the encrypted data unchanged.")
@click.option("--compact", is_flag=True, help="Drop what a compaction at the current revision would drop.")
@click.option(
    "--engine",
    "engine_name",
    type=click.Choice(["direct", "etcd"]),
    default="direct",
    show_default=True,
    help="direct: rewrite the file, keeping all revisions. etcd: rewrite through a temporary etcd, keeping "
    "current values only.",
)
@click.option("--boot-check", is_flag=True, help="Boot a copy of the new file with a real etcd before it is published.")
@options.etcd_option
@click.option("--dry-run", is_flag=True, help="Do everything except writing TARGET.")
@click.option("--report", metavar="FILE", type=options.Place(), help="Also write the JSON report to this file, or URL.")
@options.container_option
@click.option("--force", is_flag=True, help="Replace TARGET if it exists.")
@options.hash_option
@options.prefix_option
@options.jobs_option
@options.new_direct_option
@options.kms_lost_option
@options.dek_per_object_option
@options.kms_options
@options.output_option()
@options.terminal_options
def rewrite_command(*, terminal: Terminal, **said: Any) -> int:
    """Re-encrypt SOURCE into TARGET, or decrypt it, or drop what cannot be read.

    Every value is opened with --config and written as kube-apiserver would write it with --new-config. Values that do
    not change and all of etcd's history keep every byte. The new file is read back and checked with the new
    configuration alone before it gets its name; SOURCE is never changed.

    Without --new-config and --decrypt, a deleting option (--undecryptable delete or older, --undecodable delete) drops
    only what is lost or undecodable: every other record keeps every byte.

    SOURCE is a snapshot, a db file, what a platform puts around one, or an etcd data directory. From a data directory,
    the direct engine reads only the db; --engine etcd also replays the WAL. TARGET is a plain snapshot, which every
    restore takes, unless its name or --container asks for something around it.
    """
    asked = RewriteOptions(**said)
    choices = asked.choices
    _refuse_contradictions(asked, choices)
    result, steps = _rewrite(asked, choices, terminal)
    written = tuple(f"--new-config {quoted(shown(one))}" for one in asked.new_configs)
    writing = ("--decrypt",) if asked.decrypt else written
    reading = reading_words(asked.configs, asked.prefixes, embedded=asked.embedding.wanted, kms=asked.kms)
    again = Again(reading, writing, str(asked.target))
    return finish(result, steps, asked.output, terminal, again=again)


def _refuse_contradictions(said: RewriteOptions, choices: Choices) -> None:
    """Refuse options that do not go together, before anything is read. Raises UsageError."""
    if (problem := choices.contradiction(_option)) is not None:
        raise click.UsageError(problem)
    if said.by_etcd and (choices.only_lost or choices.takes_older):
        raise click.UsageError("--engine etcd keeps no history: use the direct engine to drop only what is lost")
    if said.by_etcd and said.update_embedded:
        raise click.UsageError("--update-embedded goes with the direct engine")
    if said.boot_check and said.dry_run:
        raise click.UsageError("--boot-check boots the new file, and --dry-run makes none")
    options.refuse_stdin_twice([*said.configs, *said.new_configs])


def _option(name: str, value: str) -> str:
    return f"--{name.replace('_', '-')} {value}".rstrip()


def _rewrite(said: RewriteOptions, choices: Choices, terminal: Terminal) -> tuple[RewriteReport, tuple[Step, ...]]:
    """Read the configurations, open what is read, write. Returns what was done, and what to do next."""
    from snaptool.operations.boot import replayed
    from snaptool.operations.choices import Configurations, configurations, keys_for, request_of
    from snaptool.operations.coverage import joined
    from snaptool.operations.engine import EtcdEngine
    from snaptool.operations.next_steps import next_steps
    from snaptool.operations.rewrite import DIRECT, rewrite
    from snaptool.scratch import find_etcd
    from snaptool.stores.publish import check_target

    loaded = options.load_configs(said.configs, terminal)
    each = options.load_configs(said.new_configs, terminal, strict=True, one_each=True)
    written = joined(each)
    etcd = find_etcd(said.etcd_bin) if said.boot_check or said.by_etcd else None
    by_etcd = etcd if said.by_etcd else None
    with (
        terminal.progress() as progress,
        options.open_snapshot(said.source, "source", prefixes=said.prefixes, near=said.target.parent) as found,
    ):
        if not said.dry_run:  # before an etcd is booted or a key service asked
            check_target(said.target, force=said.force, source=found.source)
        old = said.embedding.read_with(found, loaded, terminal)

        def inside() -> tuple[Recovered, Updates]:
            """Find what the snapshot carries, which takes a look at all keys, and say what becomes of it."""
            carried = said.embedding.find(found, loaded)
            updates = configurations(choices, found, said.target, old, written, carried).updates
            for note in updates.notes:
                terminal.note(note)
            return carried, updates

        # The pass that opens values looks at all keys anyway; who asked for something that depends on them hears first.
        is_asked = said.by_etcd or choices.update_embedded or choices.keep_embedded
        if is_asked or found.is_scouted or found.container is not None:
            configs = Configurations(old, written, *inside())
        else:
            configs = Configurations(old, written, inside=inside)
        with (
            replayed(found, by_etcd, progress=progress) as opened,
            _begin_report(said.report, opened.source, said.target, force=said.force) as draft,
            keys_for(choices, opened, configs, judges_later=said.by_etcd, progress=progress) as keys,
            ExitStack() as backups,
        ):
            for notice in opened.notices:
                terminal.note(notice)
            options.note_key_problems(terminal, keys.reading)
            older = [backups.enter_context(options.open_snapshot(path, "older-from")) for path in said.older_from]
            result = rewrite(
                opened,
                None if said.dry_run else said.target,
                request_of(choices, opened, configs, keys, older),
                engine=DIRECT if by_etcd is None else EtcdEngine(by_etcd),
                boot_with=etcd if said.boot_check else None,
                container=choices.container,
                force=said.force,
                progress=progress,
            )
            steps = next_steps(result, said.target, tuple(zip(map(shown, said.new_configs), each, strict=True)))
            if draft is not None:
                _publish_report(draft, result, steps)
    return result, steps


@click.command("repair", cls=Command)
@options.snapshot_argument("source", "SOURCE")
@options.target_argument
@click.option("--salvage", "salvaging", is_flag=True, help="Save the records that can be trusted from a broken SOURCE.")
@options.container_option
@click.option("--force", is_flag=True, help="Replace TARGET if it exists.")
@options.output_option()
@options.terminal_options
def repair_command(
    source: Path, target: Path, container: str, output: str, terminal: Terminal, *, salvaging: bool, force: bool
) -> int:
    """Write the same records to a fresh file: packed, without leftovers, with a correct SHA-256 trailer.

    With --salvage any file is taken, however broken: records that a tree leads to, and records carved from other pages
    where the tree is broken. The report says what is missing or not proven; exit code 3 when anything is.
    """
    from snaptool.operations.next_steps import next_steps
    from snaptool.operations.rewrite import repair

    if salvaging:
        from snaptool.operations.salvage import salvage

        with terminal.progress() as progress:
            how = options.unpacking("source", near=target.parent)
            saved = salvage(
                source, target, unpacking=how, container=options.container(container), force=force, progress=progress
            )
        for notice in saved.notices:
            terminal.note(notice)
        return finish_salvage(saved, output)
    with terminal.progress() as progress, options.open_snapshot(source, "source", near=target.parent) as opened:
        for notice in opened.notices:
            terminal.note(notice)
        result = repair(opened, target, container=options.container(container), force=force, progress=progress)
    return finish(result, next_steps(result, target, rewritten=False), output, terminal)


def _begin_report(
    report: Path | None, source: Source, target: Path, *, force: bool
) -> AbstractContextManager[Draft | None]:
    """Refuse, before any work, a report that cannot be written or would take the place of a snapshot."""
    from snaptool.stores.location import RemotePath
    from snaptool.stores.publish import StoreDraft, check_target

    if report is None:
        return nullcontext()
    remote = isinstance(report, RemotePath) or isinstance(target, RemotePath)
    if str(report) == str(target) if remote else os.path.realpath(report) == os.path.realpath(target):
        raise InputError(
            f"report and target are the same file: {report}",
            hint="name another file for the report",
            code="same_target",
        )
    check_target(report, force=force, source=source)
    return StoreDraft(report, force=force)


def _publish_report(draft: Draft, result: RewriteReport, steps: Sequence[Step]) -> None:
    try:
        draft.write((json_text(document(result, steps)) + "\n").encode())
        draft.publish()
    except SnaptoolError as error:
        if result.target is None:
            raise
        raise OutputError(
            f"{error}; but {result.target.path} is published, and verified", hint=error.hint, code="report_failed"
        ) from error
