"""What a rewrite did, as JSON and in words: what changed, what was lost, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snaptool.cli import exits
from snaptool.cli.findings import lost_document, prefix_sentence, undecodable_document
from snaptool.cli.lists import print_deletions, print_lost, print_restored, print_undecodable
from snaptool.cli.render import Terminal, echo, print_json, print_sentence, print_table, size_text
from snaptool.cli.verdict import (
    after_finding,
    causes_document,
    print_causes,
    print_older,
    print_verdict,
    summary_document,
)
from snaptool.text import counted, printable

if TYPE_CHECKING:
    from snaptool import documents
    from snaptool.operations.platform import Step
    from snaptool.operations.rewrite import RewriteReport
    from snaptool.operations.written import FileReport


@dataclass(frozen=True, slots=True)
class Again:
    """The options of the run as they are to be typed again: those that read, and those that write."""

    reading: tuple[str, ...] = ()
    writing: tuple[str, ...] = ()
    target: str = "new.db"


def finish(
    result: RewriteReport,
    steps: Sequence[Step],
    output: str,
    terminal: Terminal,
    *,
    again: Again | None = None,
) -> int:
    """Print the report; returns the exit code."""
    if output == "json":
        print_json(document(result, steps))
    elif result.stopped or not terminal.quiet:
        _print(result, steps, again or Again(), verbose=terminal.verbose)
    else:
        for one in result.unmatched:
            if one.misnamed:  # what is configured stays plaintext for it: never in silence
                echo(f"snaptool: new configuration: {one.problem}", err=True)
    if result.source_problem and result.target is not None:
        from snaptool.operations.opening import copied_unproven

        for line in copied_unproven(result.source_problem):
            terminal.note(line)
    return exits.FINDINGS if result.stopped else exits.DONE


def document(result: RewriteReport, steps: Sequence[Step] = ()) -> documents.Rewritten:
    """Return the JSON form of a report; `steps`: what to do next."""
    from snaptool.kube.prefixes import prefix_text

    return {
        "source": file_document(result.source),
        "target": None if result.target is None else file_document(result.target),
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


def _side(kind: str | None, name: str) -> documents.Under:
    return {"provider": kind or "unknown", "key_name": name or None}


def file_document(facts: FileReport) -> documents.WrittenFile:
    """Return the JSON form of the facts of a file."""
    stated: documents.WrittenFile = {
        "path": facts.path,
        "size": facts.size,
        "sha256": facts.sha256,
        "revision": facts.revision,
        "hash": facts.hash,
        "hashkv": facts.hashkv,
    }
    if (packed := facts.packed) is not None:
        stated["container"] = {"layers": list(packed.layers), "size": packed.size, "sha256": packed.sha256}
    return stated


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
    print_written(result.target, "read back and verified")
    echo(
        f"  status hash {result.target.hash:x}, HashKV {result.target.hashkv}, revision {result.target.revision:,}"
        + (f" (source: {result.source.revision:,})" if result.engine == "etcd" else "")
    )
    if result.target.packed is None:
        echo(f"  sha256 {result.target.sha256}")
    print_verdict(verdict)
    _print_next_steps(steps)


def print_written(target: FileReport, state: str) -> None:
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


def _key(kind: str | None, name: str) -> str:
    return f"{kind or 'unknown'}:{name}" if name else str(kind or "unknown")


def _print_next_steps(steps: Sequence[Step]) -> None:
    echo()
    echo("next:")
    for step in steps:
        for line in step.lines:
            echo(f"  {line}")
