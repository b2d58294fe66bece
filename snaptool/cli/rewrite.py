"""`snaptool rewrite` and `snaptool repair`: the two commands that write a snapshot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snaptool.cli import exits, options
from snaptool.cli.command import Command
from snaptool.cli.embedded import Embedding, embedded_options
from snaptool.cli.findings import lost_document, prefix_sentence, undecodable_document
from snaptool.cli.lists import print_deletions, print_lost, print_restored, print_undecodable
from snaptool.cli.render import Terminal, echo, json_text, print_json, print_sentence, print_table, size_text
from snaptool.cli.verdict import (
    after_finding,
    causes_document,
    print_causes,
    print_older,
    print_verdict,
    reading_words,
    summary_document,
)
from snaptool.errors import InputError, OutputError, SnaptoolError
from snaptool.text import counted, printable, quoted

if TYPE_CHECKING:
    from snaptool.files import Draft, Source
    from snaptool.operations.kms_options import KmsOptions
    from snaptool.operations.platform import Step
    from snaptool.operations.rewrite import RewriteReport
    from snaptool.operations.salvage import SalvageReport
    from snaptool.operations.written import FileReport

_SHOWN_LOST = 20


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
def rewrite_command(
    source: Path,
    target: Path,
    configs: tuple[str, ...],
    new_configs: tuple[str, ...],
    undecryptable: str,
    undecodable: str,
    older_from: tuple[Path, ...],
    report: Path | None,
    prefixes: tuple[str, ...],
    jobs: int,
    kms: KmsOptions,
    embedding: Embedding,
    output: str,
    engine_name: str,
    container: str,
    etcd_bin: Path | None,
    terminal: Terminal,
    *,
    boot_check: bool,
    update_embedded: bool,
    keep_embedded: bool,
    embedded_lost: bool,
    decrypt: bool,
    allow_plaintext: bool,
    allow_uncovered: bool,
    rewrap: bool,
    compact: bool,
    dry_run: bool,
    force: bool,
    skip_hash_check: bool,
) -> int:
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
    from snaptool.embedded import Updates
    from snaptool.operations.boot import replayed
    from snaptool.operations.coverage import joined, one_of
    from snaptool.operations.earlier import earlier_backups
    from snaptool.operations.embedding import plan_embedded
    from snaptool.operations.engine import EtcdEngine
    from snaptool.operations.keys import keys_for_rewriting
    from snaptool.operations.next_steps import next_steps
    from snaptool.operations.plan import RewriteRequest, Undecodable, Undecryptable
    from snaptool.operations.rewrite import DIRECT, rewrite
    from snaptool.scratch import find_etcd
    from snaptool.stores.publish import check_target

    lost = Undecryptable(undecryptable)
    only_lost = not (decrypt or new_configs)
    if decrypt and new_configs:
        raise click.UsageError("exactly one of --new-config FILE and --decrypt can be given")
    if only_lost and not (lost.deletes or undecodable == "delete"):
        raise click.UsageError(
            "--new-config FILE or --decrypt is required; to drop only what is lost (`snaptool list SOURCE --lost` "
            "shows it): --undecryptable older, or delete"
        )
    if rewrap and not new_configs:
        raise click.UsageError("--rewrap wraps keys with the plugin of --new-config; without it none is wrapped")
    if older_from and lost is not Undecryptable.OLDER:
        raise click.UsageError("--older-from goes with --undecryptable older")
    if engine_name == "etcd" and (only_lost or lost is Undecryptable.OLDER):
        raise click.UsageError("--engine etcd keeps no history: use the direct engine to drop only what is lost")
    if boot_check and dry_run:
        raise click.UsageError("--boot-check boots the new file, and --dry-run makes none")
    if update_embedded and (keep_embedded or engine_name == "etcd" or only_lost):
        raise click.UsageError("--update-embedded goes with the direct engine and a change of keys, not with others")
    if lost.deletes and not (configs or embedding.wanted):
        raise click.UsageError(f"--undecryptable {lost} needs --config: without keys all that is encrypted would go")
    options.refuse_stdin_twice([*configs, *new_configs])
    loaded = options.load_configs(configs, terminal)
    each = options.load_configs(new_configs, terminal, strict=True, one_each=True)
    written = joined(each)
    new = () if written is None else (written,)
    etcd = find_etcd(etcd_bin) if boot_check or engine_name == "etcd" else None
    by_etcd = etcd if engine_name == "etcd" else None
    with (
        terminal.progress() as progress,
        options.open_snapshot(source, "source", prefixes=prefixes, near=target.parent) as found,
    ):
        plain_allowed = allow_plaintext or allow_uncovered
        if not dry_run:
            check_target(target, force=force, source=found.source)  # before an etcd is booted or a key service asked
        old = embedding.read_with(found, loaded, terminal)
        carried = embedding.find(found, loaded)
        updates = (
            Updates()
            if only_lost
            else plan_embedded(
                found,
                carried,
                new[0] if new else None,
                target=target,
                container=options.container(container),
                update=update_embedded,
                keep=keep_embedded,
                token=embedding.token,
                entropy=os.urandom,
            )
        )
        for note in updates.notes:
            terminal.note(note)
        with (
            replayed(found, by_etcd, progress=progress) as opened,
            _begin_report(report, opened.source, target, force=force) as draft,
            keys_for_rewriting(
                opened,
                old,
                # Older revisions that come back are sealed under the first key that there is for them.
                one_of(old) if only_lost and lost is Undecryptable.OLDER else new,
                kms,
                undecryptable=lost,
                # The other engine looks at live values alone, and judges by itself.
                allow_plaintext=plain_allowed or engine_name == "etcd",
                skip_hash_check=skip_hash_check,
                rewrap=rewrap,
                progress=progress,
            ) as keys,
            ExitStack() as backups,
        ):
            for notice in opened.notices:
                terminal.note(notice)
            options.note_key_problems(terminal, keys.reading)
            older = [backups.enter_context(options.open_snapshot(path, "older-from")) for path in older_from]
            reading = keys.reading.keyring
            earlier = earlier_backups(opened, reading, older, old, kms, skip_hash_check=skip_hash_check)
            request = RewriteRequest(
                reading=reading,
                writing=keys.writing,
                rewraps=keys.rewraps,
                decrypt=decrypt,
                undecryptable=lost,
                undecodable=Undecodable(undecodable),
                allow_plaintext=plain_allowed,
                only_lost=only_lost,
                earlier=earlier,
                carried=carried,
                embedded_lost=embedded_lost,
                compact=compact,
                skip_hash_check=skip_hash_check,
                updates=updates,
                jobs=1 if kms.v1_dek_per_object else jobs,
            )
            result = rewrite(
                opened,
                None if dry_run else target,
                request,
                engine=DIRECT if by_etcd is None else EtcdEngine(by_etcd),
                boot_with=etcd if boot_check else None,
                container=options.container(container),
                force=force,
                progress=progress,
            )
            steps = next_steps(result, target, tuple(zip(new_configs, each, strict=True)))
            if draft is not None:
                _publish_report(draft, result, steps)
    writing = ("--decrypt",) if decrypt else tuple(f"--new-config {quoted(one)}" for one in new_configs)
    again = Again(reading_words(configs, prefixes, embedded=embedding.wanted), writing, str(target))
    return _finish(result, steps, output, terminal, again=again)


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
    from snaptool.operations.salvage import salvage

    if salvaging:
        with terminal.progress() as progress:
            how = options.unpacking("source", near=target.parent)
            saved = salvage(
                source, target, unpacking=how, container=options.container(container), force=force, progress=progress
            )
        for notice in saved.notices:
            terminal.note(notice)
        return _finish_salvage(saved, output)
    with terminal.progress() as progress, options.open_snapshot(source, "source", near=target.parent) as opened:
        for notice in opened.notices:
            terminal.note(notice)
        result = repair(opened, target, container=options.container(container), force=force, progress=progress)
    return _finish(result, next_steps(result, target, rewritten=False), output, terminal)


def _finish_salvage(saved: SalvageReport, output: str) -> int:
    if output == "json":
        print_json(_salvage_document(saved))
    else:
        _print_salvage(saved)
    return exits.DONE if saved.intact else exits.FINDINGS


def _salvage_document(saved: SalvageReport) -> dict[str, Any]:
    return {
        "source": saved.source,
        "target": _file(saved.target),
        "intact": saved.intact,
        "records": {
            "total": saved.records,
            "carved": saved.carved,
            "uncertain": saved.uncertain,
            "stale": saved.stale,
        },
        "doubtful": [
            {"key": printable(one.key), "revision": one.revision.main, "sub": one.revision.sub, "page": one.page}
            for one in saved.doubtful
        ],
        "missing": list(saved.missing),
        "dangling_leases": saved.dangling_leases,
        "pages": {"size": saved.page_size, "read": saved.pages_read, "carved": saved.carved_pages},
    }


def _print_salvage(saved: SalvageReport) -> None:
    for sentence in saved.missing[:_SHOWN_LOST]:
        echo(f"missing or not proven: {sentence}")
    if len(saved.missing) > _SHOWN_LOST:
        echo(f"... and {len(saved.missing) - _SHOWN_LOST:,} more; -o json lists all of them")
    for one in saved.doubtful[:_SHOWN_LOST]:
        echo(f"left out, several records differ: {printable(one.key)}, revision {one.revision}, page {one.page}")
    if len(saved.doubtful) > _SHOWN_LOST:
        echo(f"... and {len(saved.doubtful) - _SHOWN_LOST:,} more; -o json lists all of them")
    echo(f"{counted(saved.records, 'record')}: {saved.records - saved.carved:,} from the tree, {saved.carved:,} carved")
    if saved.uncertain:
        uncertain = counted(saved.uncertain, "of the carved ones is", "of the carved ones are")
        echo(f"  {uncertain} older than the compaction: a deletion may be lost")
    if saved.dangling_leases:
        keys = counted(saved.dangling_leases, "key names", "keys name")
        echo(f"  {keys} a lease that is lost: without it nothing expires")
    stale = counted(saved.stale, "stale record")
    echo(f"{stale} in {counted(saved.carved_pages, 'free page')} left out")
    if saved.intact:
        echo("the tree of the source has no fault: nothing is missing")
    _print_written(saved.target, "read back and checked")
    digest = "" if saved.target.packed is not None else f", sha256 {saved.target.sha256}"
    echo(f"  status hash {saved.target.hash:x}, revision {saved.target.revision:,}{digest}")


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


def _finish(
    result: RewriteReport,
    steps: Sequence[Step],
    output: str,
    terminal: Terminal,
    *,
    again: Again | None = None,
) -> int:
    if output == "json":
        print_json(document(result, steps))
    elif result.stopped or not terminal.quiet:
        _print(result, steps, again or Again(), verbose=terminal.verbose)
    else:
        for one in result.unmatched:
            if one.misnamed:  # what is configured stays plaintext for it: never in silence
                echo(f"snaptool: new configuration: {one.problem}", err=True)
    if result.source_problem and result.target is not None:
        terminal.note(f"of the source, {result.source_problem}: its records were copied as they are, and the")
        terminal.note("  SHA-256 of the new file says nothing about whether they are the ones that were saved")
    return exits.FINDINGS if result.stopped else exits.DONE


def document(result: RewriteReport, steps: Sequence[Step] = ()) -> dict[str, Any]:
    """Return the JSON form of a report; `steps`: what to do next."""
    from snaptool.kube import prefix_text

    return {
        "source": _file(result.source),
        "target": None if result.target is None else _file(result.target),
        "dry_run": result.dry_run,
        "engine": result.engine,
        "prefixes": None if result.prefixes is None else [prefix_text(prefix) for prefix in result.prefixes],
        "unmatched": [
            {
                "resource": one.name,
                "fault": one.misnamed.fault if one.misnamed else None,
                "meant": list(one.misnamed.meant) if one.misnamed else [],
            }
            for one in result.unmatched
        ],
        "records": {
            "total": result.records.total,
            "copied": result.records.copied,
            "rewritten": result.records.rewritten,
            "deleted": result.records.deleted,
        },
        "values": [
            {
                "resource": change.resource,
                "from": _side(change.from_kind, change.from_key),
                "to": None if change.to_key is None else _side(change.to_kind, change.to_key),
                "live": change.live,
                "old": change.old,
            }
            for change in result.values
        ],
        "embedded": {"place": result.updated.place, "records": len(result.updated.values)}
        if result.updated.place
        else None,
        "lost": [lost_document(lost) for lost in result.lost],
        "undecodable": [undecodable_document(value) for value in result.undecodable],
        "restored": [
            {
                "key": printable(one.key),
                "resource": one.resource.name,
                "revision": one.revision,
                "from_revision": one.from_revision,
                "from": one.place or None,
            }
            for one in result.restored
        ],
        "deletions": [
            {
                "key": printable(deletion.key),
                "resource": deletion.resource,
                "whole": deletion.whole,
                "revisions": list(deletion.revisions),
                "reason": deletion.reason,
                "consequence": deletion.consequence,
                "no_older": result.older.missing.get(deletion.key) if deletion.whole else None,
            }
            for deletion in result.deletions
        ],
        "source_problem": result.source_problem or None,
        "next": [{"code": step.code, "text": "\n".join(step.lines)} for step in steps],
        "likelier_causes": causes_document(result.causes),
        "summary": summary_document(result.summary),
        "verified": result.verified,
        "seconds": round(result.seconds, 3),
    }


def _side(kind: str | None, name: str) -> dict[str, str | None]:
    return {"provider": kind or "unknown", "key_name": name or None}


def _file(facts: FileReport) -> dict[str, Any]:
    stated = {
        "path": facts.path,
        "size": facts.size,
        "sha256": facts.sha256,
        "revision": facts.revision,
        "hash": facts.hash,
        "hashkv": facts.hashkv,
    }
    if facts.packed is None:
        return stated
    packed = {"layers": list(facts.packed.layers), "size": facts.packed.size, "sha256": facts.packed.sha256}
    return stated | {"container": packed}


def _print(result: RewriteReport, steps: Sequence[Step], again: Again, *, verbose: bool) -> None:
    verdict, prefixes = result.summary, result.prefixes or ()
    if result.stopped:
        print_causes(result.causes)
    print_lost(result.lost, with_config=bool(again.reading))
    print_undecodable(result.undecodable)
    if result.stopped:
        _print_why_stopped(result, with_config=bool(again.reading))
        print_older(result.older, result.source.path, prefixes, again.reading)
        print_verdict(
            verdict,
            after_finding(
                verdict,
                result.causes,
                result.source.path,
                again.reading,
                target=again.target,
                writing=again.writing,
            ),
        )
        return
    _print_changes(result, verbose=verbose)
    if result.prefixes is not None:
        echo(prefix_sentence(result.prefixes))
    for one in result.unmatched:
        print_sentence(f"new configuration: {one.problem}")
    print_restored(result.restored)
    print_deletions(result.deletions, result.older.missing if result.undecryptable == "older" else {})
    _print_about_undecodable(result)
    counts = result.records
    what = "live key" if result.engine == "etcd" else "record"
    echo()
    echo(
        f"{counted(counts.total, what)}: {counts.copied:,} copied, {counts.rewritten:,} rewritten, "
        f"{counts.deleted:,} deleted; {result.seconds:.1f} s"
    )
    if result.engine == "etcd":
        echo("written through a scratch etcd, which keeps live values only: old revisions are not in the new file")
    if result.target is None:
        print_verdict(verdict)
        echo("dry run: nothing was written")
        return
    _print_written(result.target, "read back and verified")
    echo(
        f"  status hash {result.target.hash:x}, HashKV {result.target.hashkv}, revision {result.target.revision:,}"
        + (f" (source: {result.source.revision:,})" if result.engine == "etcd" else "")
    )
    if result.target.packed is None:
        echo(f"  sha256 {result.target.sha256}")
    print_verdict(verdict)
    _print_next_steps(steps)


def _print_written(target: FileReport, state: str) -> None:
    """Print what was written; of a container, its own size and SHA-256, which other programs see, and what is in it."""
    if target.packed is None:
        echo(f"{target.path}: {size_text(target.size)}, {state}")
        return
    layers = ", in it ".join(target.packed.layers)
    echo(f"{target.path}: {size_text(target.packed.size)}, {state}; sha256 {target.packed.sha256}")
    echo(f"  {layers}: a snapshot of {size_text(target.size)}, sha256 {target.sha256}")


def _print_why_stopped(result: RewriteReport, *, with_config: bool) -> None:
    from snaptool.operations.plan import Undecodable, Undecryptable

    if result.lost and result.undecryptable is Undecryptable.STOP:
        echo()
        echo(f"{_values(len(result.lost))} not open, so nothing was written.")
        if any(cause.inside for cause in result.causes):
            echo("  do first what stands above; --undecryptable keep copies them as they are")
        elif with_config:
            echo("  --undecryptable older, delete or keep says what becomes of them")
        else:
            echo("  give the configuration that they were written with: --config FILE; none was given")
    if result.broken and result.undecodable_choice is Undecodable.STOP:
        echo()
        count = counted(len(result.broken), "value")
        echo(f"no API server can decode {count}, so nothing was written.")
        echo("  --undecodable delete drops these keys, --undecodable keep leaves their bytes")
    _print_also_going(len(result.unsettled), result.also_going)


def _print_also_going(count: int, more: int) -> None:
    """Say what a deletion takes along: a hint never widens a loss without a word."""
    if more:
        what = counted(more, "older value of the same objects that opens", "older values of the same objects that open")
        echo(f"  delete drops {count + more:,} values: what is listed, and {what}")


def _values(count: int) -> str:
    return counted(count, "value does", "values do")


def _print_about_undecodable(result: RewriteReport) -> None:
    from snaptool.operations.plan import Undecodable

    mended = len(result.undecodable) - len(result.broken)
    if mended:
        echo(f"{mended:,} of the undecodable values had only lost the header: the object itself is written, mended")
    if result.broken and result.undecodable_choice is Undecodable.KEEP:
        current = [value for value in result.broken if value.live]
        resources = ", ".join(sorted({value.resource.name for value in current}))
        consequence = f"; lists of {resources} fail on them" if current else ", all of them old revisions"
        kept = counted(len(result.broken), "undecodable value is", "undecodable values are")
        them = "it" if len(result.broken) == 1 else "them"
        echo(f"warning: {kept} kept{consequence}; --undecodable delete drops {them}")


def _print_changes(result: RewriteReport, *, verbose: bool) -> None:
    shown = [
        change
        for change in result.values
        if verbose or (change.from_kind, change.from_key) != (change.to_kind, change.to_key)
    ]
    rows = [
        [
            change.resource,
            _key(change.from_kind, change.from_key),
            "deleted" if change.to_key is None else _key(change.to_kind, change.to_key),
            change.live,
            change.old,
        ]
        for change in shown
    ]
    if not rows:
        echo("no value changes")
        return
    print_table(["RESOURCE", "FROM", "TO", "LIVE", "OLD"], rows, right="   rr")


@dataclass(frozen=True, slots=True)
class Again:
    """The options of the run as they are to be typed again: those that read, and those that write."""

    reading: tuple[str, ...] = ()
    writing: tuple[str, ...] = ()
    target: str = "new.db"


def _key(kind: str | None, name: str) -> str:
    return f"{kind or 'unknown'}:{name}" if name else str(kind or "unknown")


def _print_next_steps(steps: Sequence[Step]) -> None:
    echo()
    echo("next:")
    for step in steps:
        for line in step.lines:
            echo(f"  {line}")
