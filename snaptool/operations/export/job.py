"""The export itself: look, decide, check, write, publish."""

from __future__ import annotations

import contextlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snaptool.errors import InputError, ProviderError
from snaptool.etcd import RevisionCompacted, RevisionInFuture
from snaptool.files import Draft, check_target
from snaptool.folder import FolderDraft, check_folder_target
from snaptool.kube.export import CRD, CREATE, OWNED, SECRET, Kind, Leave, Place, place
from snaptool.kube.keys import key_prefixes, resolve_type
from snaptool.kube.prefixes import prefix_text
from snaptool.operations.export.absent import NothingToExport, last_with_objects, left_at
from snaptool.operations.export.advice import NoteBook, Written, commands, general_notes
from snaptool.operations.export.choosing import Choice, Chosen, choose, wants
from snaptool.operations.export.manifest import make_manifest
from snaptool.operations.export.reporting import Report, shown_key
from snaptool.operations.export.request import ENDING_FORMATS, ExportRequest, Format, Lost, Secrets
from snaptool.operations.export.rows import LostValue, Reader, Row, collect_rows
from snaptool.operations.export.sinks import Folder, Sink, Stream, is_an_export
from snaptool.operations.inside import where_configurations_are
from snaptool.operations.lives import last_life, life_of_namespace, looking
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.sweep import Progress, no_progress
from snaptool.providers.keyring import Keyring
from snaptool.text import counted, printable


class ValuesLost(ProviderError):
    """Values of the selection do not open. `lost`: which, and why. Nothing was written."""

    def __init__(self, lost: tuple[LostValue, ...], *, where: str, with_older: int, with_config: bool) -> None:
        hint = "--undecryptable skip goes on without them; another --config may hold their key"
        if with_older:
            have = "has" if with_older == 1 else "have"
            hint = f"{with_older:,} of them {have} an older revision that opens: --undecryptable older takes it; {hint}"
        if not with_config:
            hint = f"give the EncryptionConfiguration of their cluster {where}"
        one = f"{printable(lost[0].key)} does not open: {lost[0].reason}"
        super().__init__(one if len(lost) == 1 else f"{len(lost):,} values do not open, the first: {one}", hint=hint)
        self.lost = lost


class SecretsOnTerminal(InputError):
    """Secrets would be shown on a terminal."""

    def __init__(self, count: int) -> None:
        super().__init__(
            f"{count:,} Secret{'' if count == 1 else 's'} would be shown on this terminal",
            hint="--to writes files that only you can read, --secrets skip leaves them out, or use a pipe",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where an export goes. `to`: a file, a directory, or None: `write` is then called with the bytes of a stream.

    `terminal`: those bytes are shown to somebody.
    """

    to: Path | None = None
    write: Callable[[bytes], object] = field(default=lambda _: None)
    terminal: bool = False
    report: Path | None = None
    force: bool = False


@dataclass(slots=True)
class Exported:
    """What came of an export. `notes` are sentences; `commands`: what to run, each with what is said before it.

    `kinds`: documents by kind; `left_out`: by reason; `lost`: left out with --undecryptable skip; `unknown_fields`: by
    key, fields that no release has, which are not in the manifests.
    """

    revision: int
    prefixes: tuple[str, ...]
    kinds: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    apart: int = 0
    lost: tuple[LostValue, ...] = ()
    older: dict[bytes, int] = field(default_factory=dict)
    unknown_fields: dict[bytes, tuple[str, ...]] = field(default_factory=dict)
    pruned: dict[bytes, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    commands: tuple[tuple[str, str], ...] = ()

    @property
    def complete(self) -> bool:
        """Everything that was asked for is in it, whole."""
        missing = self.left_out[Leave.UNKNOWN_KIND] + self.left_out[Leave.UNDECODABLE]
        return not (self.lost or self.unknown_fields or missing)


def export(
    opened: OpenedSnapshot,
    request: ExportRequest,
    output: Output,
    keyring: Keyring | None = None,
    *,
    skip_hash_check: bool = False,
    progress: Progress = no_progress,
) -> Exported:
    """Write the objects of a snapshot as manifests for `kubectl apply`.

    Raises NothingToExport, ValuesLost, SecretsOnTerminal, InputError for a target that may not be written, OutputError,
    WrongTrailer, and the FormatErrors of a damaged file. Then nothing was written.
    """
    return _Job(opened, request, output, keyring, progress).run(skip_hash_check=skip_hash_check)


class _Job:
    def __init__(
        self,
        opened: OpenedSnapshot,
        request: ExportRequest,
        output: Output,
        keyring: Keyring | None,
        progress: Progress,
    ) -> None:
        self._opened = opened
        self._request = request
        self._output = output
        self._keyring = keyring
        self._progress = progress
        self._form = _format_of(output.to, request)
        self._tree = output.to is not None and output.to.suffix not in ENDING_FORMATS
        self._book = NoteBook()
        self._written = Written()

    def run(self, *, skip_hash_check: bool) -> Exported:
        snapshot, request = self._opened.snapshot, self._request
        self._check_targets()
        self._check_revision()
        with self._opened.digests() as digests:
            prefixes = self._opened.prefixes
            rows = collect_rows(
                self._opened, prefixes, request.revision, lambda key: wants(request, key), self._progress
            )
            reader = Reader(rows, self._keyring)
            chosen = choose(rows, request, reader)
            while request.undecryptable is Lost.OLDER and reader.find_older():
                reader.lost.clear()
                chosen = choose(rows, request, reader)  # what is read now may name others
            if not skip_hash_check:
                digests.require_right_trailer()
        self._check_found(chosen)
        nothing_else = not any(choice in _WRITTEN for choice in chosen.choices)
        if reader.lost and (request.undecryptable is Lost.STOP or nothing_else):
            lost = _in_order(reader.lost)
            raise ValuesLost(
                lost,
                where=where_configurations_are(self._opened),
                with_older=reader.find_older(),
                with_config=self._keyring is not None,
            )
        if self._output.terminal and chosen.secrets and request.secrets is Secrets.INCLUDE:
            raise SecretsOnTerminal(chosen.secrets)
        made = Exported(request.revision or snapshot.current_revision, prefixes)
        made.lost = _in_order(reader.lost)
        made.older = {key: record.revision.main for key, record in reader.older.items()}
        self._write(made, chosen, reader)
        return made

    # -- refusals

    def _check_targets(self) -> None:
        """Refuse targets that may not be written, before any work."""
        output, source = self._output, self._opened.source
        if output.to is not None and self._tree:
            check_folder_target(output.to, force=output.force, may_replace=is_an_export)
        elif output.to is not None:
            check_target(output.to, force=output.force, source=source)
        if output.report is not None:
            check_target(output.report, force=output.force, source=source)
            if output.to is not None and output.to.absolute() == output.report.absolute():
                raise InputError(
                    "manifests and report have the same name",
                    hint="name another file with --report",
                    code="same_target",
                )

    def _check_revision(self) -> None:
        wanted, snapshot = self._request.revision, self._opened.snapshot
        if wanted is None:
            return
        if wanted > snapshot.current_revision:
            raise RevisionInFuture(
                f"the snapshot ends at revision {snapshot.current_revision}, before {wanted}",
                hint="without --revision the newest state is exported",
            )
        if wanted < snapshot.compacted_revision:
            raise RevisionCompacted(
                f"revision {wanted} is gone: the store was compacted at {snapshot.compacted_revision}",
                hint=f"the oldest state of this file is --revision {snapshot.compacted_revision}; an earlier backup "
                "may have the other",
            )

    def _check_found(self, chosen: Chosen) -> None:
        request = self._request
        for namespace in request.namespaces:
            since = chosen.facts.terminating.get(namespace)
            if since and request.revision is not None and not (request.types or request.raw):
                raise self._no_namespace(namespace, chosen, being_deleted=True)
            if namespace not in chosen.found_namespaces:
                raise self._no_namespace(namespace, chosen, being_deleted=False)
        for named in request.types:
            if named.name is not None and not any(named.covers(row.key) and self._counts(row) for row in chosen.rows):
                raise self._no_object(str(named), chosen)
        if not any(choice in _WRITTEN or choice == Choice.LOST for choice in chosen.choices):
            reasons = Counter(str(chosen.reason(index)) for index in range(len(chosen.rows)) if chosen.reason(index))
            left = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))
            raise NothingToExport(
                f"nothing is exported{f': all that was found is left out ({left})' if left else ': nothing was found'}",
                hint="a TYPE that is named is exported whatever it is; `snaptool list` shows what is there",
            )

    def _counts(self, row: Row) -> bool:
        return row.key.namespace is None or self._request.includes(row.namespace)

    def _no_namespace(self, namespace: str, chosen: Chosen, *, being_deleted: bool) -> NothingToExport:
        snapshot, until = self._opened.snapshot, self._request.revision
        found = life_of_namespace(self._opened, namespace, self._keyring, until)
        what = f"there is no namespace {namespace} at revision {until or snapshot.current_revision}"
        if being_deleted and found is not None:
            what = f"namespace {namespace} was being deleted at revision {until}: marked at {found.marked}"
        whole = found.whole if found else last_with_objects(snapshot, namespace, chosen.rows.prefixes)
        if being_deleted and not whole:
            return NothingToExport(what, hint="it is in this file at no earlier revision; a named TYPE is exported")
        if not whole:
            later = life_of_namespace(self._opened, namespace, self._keyring)
            hint = "`snaptool list SNAPSHOT namespaces` shows which there are"
            if later is not None and until is not None:
                hint = f"it was made later; without --revision the state at {snapshot.current_revision} is exported"
            return NothingToExport(what, hint=hint)
        gone = f", deleted at {found.deleted}" if found and found.deleted else ""
        return self._with_revision(f"{what}{gone}", whole, namespace, chosen.rows.prefixes)

    def _with_revision(self, what: str, whole: int, namespace: str, prefixes: tuple[str, ...]) -> NothingToExport:
        """Say at which revision it was whole, or that it is compacted and what is left."""
        snapshot = self._opened.snapshot
        compacted = snapshot.compacted_revision
        if whole >= compacted:
            return NothingToExport(
                what, hint=f"--revision {whole} is the last one at which it was whole", revision=whole
            )
        left = left_at(snapshot, namespace, prefixes, compacted) if namespace else {}
        count = sum(left.values())
        hint = f"it was whole at revision {whole}, which is gone: the store was compacted at {compacted}, where "
        hint += f"{count:,} of its objects {'is' if count == 1 else 'are'} left; look for an earlier backup"
        if count:
            words = f"{' '.join(sorted(left))} -n {namespace} --revision {compacted}"
            hint += f", or export what is left: snaptool export SNAPSHOT {words}"
        return NothingToExport(what, hint=hint)

    def _no_object(self, said: str, chosen: Chosen) -> NothingToExport:
        snapshot, until = self._opened.snapshot, self._request.revision
        what = f"there is no {said} at revision {until or snapshot.current_revision}"
        keys = self._keys_of(said, chosen.rows.prefixes)
        found = snapshot.history_of(keys)
        look = looking(self._opened, self._keyring)
        lives = [one for key in keys if (one := last_life(found.get(key, []), look, until)) is not None]
        if not lives or not lives[0].whole:
            return NothingToExport(what, hint="`snaptool list` shows which objects there are, and in which namespaces")
        return self._with_revision(what, lives[0].whole, "", chosen.rows.prefixes)

    def _keys_of(self, said: str, prefixes: tuple[str, ...]) -> list[bytes]:
        return [
            key
            for named in self._request.types
            if str(named) == said
            for prefix in prefixes
            for namespace in (*self._request.namespaces, None)
            for key in key_prefixes(named.type, namespace, named.name, prefix=prefix)
        ]

    # -- writing

    def _write(self, made: Exported, chosen: Chosen, reader: Reader) -> None:
        output = self._output
        with contextlib.ExitStack() as stack:
            sink, publish = self._open_sink(stack)
            draft = stack.enter_context(Draft(output.report, force=output.force)) if output.report else None
            report = Report(draft)
            order = _in_apply_order(chosen)
            for done, index in enumerate(order):
                if done % _TEND == 0:
                    self._opened.between_chunks(None)
                    self._progress("writing", done, len(order))
                self._write_one(chosen.rows[index], made, chosen, reader, sink, report)
            sink.finish()
            self._finish(made, chosen)
            self._progress("publishing", 0, 1)
            publish()
            report.finish(_members(made, chosen))

    def _open_sink(self, stack: contextlib.ExitStack) -> tuple[Sink, Callable[[], None]]:
        output = self._output
        if output.to is None:
            return Stream(output.write, self._form, safe=output.terminal), lambda: None
        if not self._tree:
            draft = stack.enter_context(Draft(output.to, force=output.force))
            return Stream(draft.write, self._form, file=output.to.name), draft.publish
        folder = stack.enter_context(FolderDraft(output.to, force=output.force, may_replace=is_an_export))
        return Folder(folder, self._form), folder.publish

    def _write_one(self, row: Row, made: Exported, chosen: Chosen, reader: Reader, sink: Sink, report: Report) -> None:
        seen = reader.read(row)
        if seen is None:  # it opened a moment ago
            raise InputError(
                f"{printable(row.key.key)} cannot be read a second time",
                hint="run the command again",
                code="cannot_read",
            )
        apart = chosen.choices[row.index] == Choice.APART
        manifest = make_manifest(seen, chosen, self._request)
        where = place(seen.kind, row.namespace, row.key.name, create=manifest.create, owned=apart)
        hidden = seen.kind == SECRET and self._request.secrets is not Secrets.INCLUDE
        tree = seen.decoded.shown() if self._request.raw and not hidden else manifest.tree
        file = (sink.add_apart if apart else sink.add)(where, tree, shown_key(row.key.key))
        for text, group in () if apart else manifest.notes:
            self._book.add(seen.kind, seen.name, text, group)
        if seen.decoded.unknown and not self._request.raw:
            made.unknown_fields[row.key.key] = tuple(one.place for one in seen.decoded.unknown)
        if manifest.pruned:
            made.pruned[row.key.key] = tuple(manifest.pruned)
        self._count(seen.kind, row, where, made, apart=apart)
        if report.wanted and not apart:
            report.document(
                {
                    "key": shown_key(row.key.key),
                    "revision": seen.older or row.revision,
                    "apiVersion": tree.get("apiVersion"),
                    "kind": tree.get("kind"),
                    "namespace": row.key.namespace,
                    "name": row.key.name,
                    "file": file,
                    "removed": manifest.removed,
                    "notes": [text for text, _ in manifest.notes],
                }
            )

    def _count(self, kind: Kind, row: Row, where: Place, made: Exported, *, apart: bool) -> None:
        self._written.folders.add(where.folder)
        if apart:
            made.apart += 1
            return
        made.kinds[str(kind) if not kind.built_in else kind.kind] += 1
        if kind == Kind("PersistentVolume", "") and where.folder != CREATE:
            self._written.volumes.append(row.key.name)
        self._written.definitions += kind == CRD
        self._written.custom += not kind.built_in

    def _finish(self, made: Exported, chosen: Chosen) -> None:
        """Work out what is said when all is written."""
        for index in range(len(chosen.rows)):
            if (reason := chosen.reason(index)) is not None:
                made.left_out[str(reason)] += 1
        if made.apart:
            made.left_out[str(Leave.OWNED)] += made.apart
        gone, whole = self._gone_definitions(chosen), self._whole_before(chosen)
        notes = [*self._book.lines(), *general_notes(chosen, self._request, gone, whole)]
        if made.pruned:
            notes.append(
                f"{counted(len(made.pruned), 'custom resource has', 'custom resources have')} fields that their schema "
                "does not name; a server does not show them, and they are not in the manifests; --report has the paths"
            )
        if made.apart:
            where = OWNED if self._tree else "a comment at the end"
            notes.append(
                f"{counted(made.apart, 'custom resource')} made by exported owners, whose "
                f"controllers make them again: in {where}, not in the commands"
            )
        made.notes = tuple(notes)
        if not self._request.raw:
            target = None if self._output.to is None else str(self._output.to)
            made.commands = tuple(commands(self._written, target, tree=self._tree))

    def _whole_before(self, chosen: Chosen) -> dict[str, int]:
        """Find the revisions at which namespaces that are being deleted were whole, if they are still there."""
        whole = {}
        for namespace in filter(self._request.includes, chosen.facts.terminating):
            life = life_of_namespace(self._opened, namespace, self._keyring, self._request.revision)
            if life is not None and life.whole >= max(self._opened.snapshot.compacted_revision, 1):
                whole[namespace] = life.whole
        return whole

    def _gone_definitions(self, chosen: Chosen) -> dict[str, str]:
        """Look for definitions of exported custom resources that are not there any more."""
        snapshot, gone = self._opened.snapshot, {}
        paths = {
            path: f"{path.partition('/')[2]}.{path.partition('/')[0]}"
            for path, kind in chosen.kinds.items()
            if not kind.built_in and path not in chosen.definitions
        }
        keys = {
            key: name
            for prefix in chosen.rows.prefixes
            for name in paths.values()
            for key in key_prefixes(resolve_type("crd"), None, name, prefix=prefix)
        }
        for key, records in snapshot.history_of(keys).items() if keys else ():
            found = last_life(records, looking(self._opened, self._keyring), self._request.revision)
            if found is not None and found.whole:
                kept = found.whole >= snapshot.compacted_revision
                has = f"--revision {found.whole} has it" if kept else f"revision {found.whole} is compacted"
                gone[keys[key]] = f" (deleted at revision {found.deleted or found.marked}; {has})"
        return gone


_TEND = 1000
_WRITTEN = (Choice.EXPORT, Choice.APART)


def _in_order(lost: dict[bytes, LostValue]) -> tuple[LostValue, ...]:
    return tuple(lost[key] for key in sorted(lost))


def _format_of(to: Path | None, request: ExportRequest) -> Format:
    """Return how manifests are written: as the target's name says, else as asked."""
    by_name = ENDING_FORMATS.get(to.suffix) if to is not None else None
    if by_name is not None and request.format is not None and request.format is not by_name:
        raise InputError(
            f"{to} is not a name for {request.format.value}",
            hint="leave --format out, or name another target",
            code="wrong_usage",
        )
    return by_name or request.format or Format.YAML


def _in_apply_order(chosen: Chosen) -> array[int]:
    """Order what is written: by rank, kind and group, then namespace and name; what goes apart comes last."""
    rows, order = chosen.rows, array("q")
    for choice in _WRITTEN:
        found: dict[int, array[int]] = {}
        for index in chosen.with_choice(choice):
            found.setdefault(rows.path[index], array("q")).append(index)
        ranked = []
        for path, indexes in found.items():
            kind, namespaced = chosen.kinds[rows.paths[path]], rows[indexes[0]].key.namespace is not None
            ranked.append((kind.rank(namespaced=namespaced), kind, rows.paths[path], path))
        for *_, path in sorted(ranked):
            order.extend(_by_name(chosen, found[path]))
    return order


def _by_name(chosen: Chosen, indexes: array[int]) -> list[int]:
    """Order rows of one resource by namespace and name: keys alone would put `a-b/x` before `a/x`."""
    rows = chosen.rows
    names: dict[str, str] = {}  # one text for all rows of a namespace

    def namespace(index: int) -> str:
        name = rows[index].namespace
        return names.setdefault(name, name)

    return sorted(rows.in_order_of_keys(indexes), key=namespace)


def _members(made: Exported, chosen: Chosen) -> Iterator[tuple[str, Iterator[Any]]]:
    yield "left_out", _left_rows(chosen)
    yield (
        "undecryptable",
        (
            {
                "key": shown_key(one.key),
                "revision": one.revision,
                "provider": one.provider,
                "key_name": one.key_name or None,
                "reason": one.reason,
            }
            for one in made.lost
        ),
    )
    yield "older", ({"key": shown_key(key), "revision": revision} for key, revision in sorted(made.older.items()))
    for name, found in (("unknown_fields", made.unknown_fields), ("pruned", made.pruned)):
        yield name, ({"key": shown_key(key), "paths": list(paths)} for key, paths in sorted(found.items()))
    yield "prefixes", map(prefix_text, made.prefixes)
    yield "notes", iter(made.notes)
    yield "next", (command for _, command in made.commands if command)


def _left_rows(chosen: Chosen) -> Iterator[dict[str, str]]:
    rows = chosen.rows
    choices = enumerate(chosen.choices)
    left = array("q", (index for index, choice in choices if choice == Choice.APART or choice >= Choice.LEFT))
    for index in rows.in_order_of_keys(left):
        reason = Leave.OWNED if chosen.choices[index] == Choice.APART else chosen.reason(index)
        yield {"key": shown_key(rows[index].key.key), "reason": str(reason)}
