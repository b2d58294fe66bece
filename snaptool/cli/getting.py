"""What `snaptool get` prints: one object by itself, several as a table, as names, or as a List."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from snaptool.cli import exits
from snaptool.cli.looking import SHOWN_REASONS, absent_note, short_name
from snaptool.cli.render import Terminal, echo, print_bytes, print_object, print_objects, print_table
from snaptool.text import counted, printable

if TYPE_CHECKING:
    from snaptool.operations.asked import Asked, Types
    from snaptool.operations.judging import Defined
    from snaptool.operations.object import StoredValue, Target
    from snaptool.operations.opening import OpenedSnapshot
    from snaptool.operations.shown import ShownObject
    from snaptool.providers.keyring import Keyring

_COLUMNS: dict[str, tuple[tuple[str, str], ...]] = {
    "configmaps": (("DATA", "#data"),),
    "secrets": (("TYPE", "type"), ("DATA", "#data")),
    "namespaces": (("STATUS", "status.phase"),),
    "nodes": (("VERSION", "status.nodeInfo.kubeletVersion"),),
    "pods": (("STATUS", "status.phase"), ("NODE", "spec.nodeName")),
    "services": (("TYPE", "spec.type"), ("CLUSTER-IP", "spec.clusterIP")),
    "persistentvolumeclaims": (("STATUS", "status.phase"), ("VOLUME", "spec.volumeName")),
    "persistentvolumes": (("STATUS", "status.phase"), ("CLAIM", "spec.claimRef.name")),
    "deployments.apps": (("REPLICAS", "spec.replicas"), ("READY", "status.readyReplicas")),
    "statefulsets.apps": (("REPLICAS", "spec.replicas"), ("READY", "status.readyReplicas")),
    "replicasets.apps": (("REPLICAS", "spec.replicas"), ("READY", "status.readyReplicas")),
    "daemonsets.apps": (("DESIRED", "status.desiredNumberScheduled"), ("READY", "status.numberReady")),
    "jobs.batch": (("SUCCEEDED", "status.succeeded"),),
    "cronjobs.batch": (("SCHEDULE", "spec.schedule"), ("SUSPEND", "spec.suspend")),
    "ingresses.networking.k8s.io": (("CLASS", "spec.ingressClassName"),),
    "customresourcedefinitions.apiextensions.k8s.io": (("KIND", "spec.names.kind"), ("SCOPE", "spec.scope")),
}
"""Some of kubectl's columns, for the kinds that people look at most: heading and path; # counts."""


@dataclass
class Getting:
    """One run of `get`. `lost`: why values did not open, and how many; `odd`: how many are not objects."""

    opened: OpenedSnapshot
    types: Types
    keyring: Keyring | None
    revision: int | None
    terminal: Terminal
    managed_fields: bool
    lost: dict[tuple[str, str], int] = field(default_factory=dict)
    odd: int = 0

    @cached_property
    def defined(self) -> Defined:
        """The versions that the custom resources of the snapshot are defined in."""
        from snaptool.operations.defined import defined_versions

        return defined_versions(self.opened, self.keyring)

    def one(self, target: Target, output: str, configs: Sequence[str], *, skip_hash_check: bool) -> int:
        """Print one object by itself, or its bytes."""
        from snaptool.operations.object import find_value, open_found
        from snaptool.operations.shown import show_object

        terminal = self.terminal
        value = find_value(self.opened, target, self.revision, keyring=self.keyring, skip_hash_check=skip_hash_check)
        where = (
            f"{printable(value.key)} at revision {value.revision}, {'the current' if value.live else 'an old'} value"
        )
        if output == "name":
            echo(self._name(value))
            return exits.DONE
        if output == "stored":
            terminal.note(where)
            print_bytes(value.stored)
            return exits.DONE
        found = open_found(self.opened, value, self.keyring, self.defined)
        by = ""
        if found.outcome.key_name and configs:
            by = f", opened by {found.outcome.kind} {found.outcome.key_name} of {configs[found.outcome.position[0]]}"
        if found.fault is not None:
            terminal.note("no API server can decode this value: lists of its resource fail while it is the current one")
        terminal.note(where + (by if value.stored is not found.plaintext else ", in plaintext"))
        if found.notice:
            terminal.note(found.notice)
        code = exits.DONE if found.fault is None else exits.FINDINGS
        if output == "value":
            print_bytes(found.plaintext)
            return code
        shown = show_object(value, found.plaintext, self.types, managed_fields=self.managed_fields)
        for note in shown.notes:
            terminal.note(note)
        if output == "text":
            self._print_table(iter([(value, shown)]), self._resource(value), spread=False)
        else:
            print_object(shown.tree, output)
        return code

    def several(self, asked: Asked, output: str, *, skip_hash_check: bool) -> int:
        """Print all that was asked for. Exit code 3 when some of it is lost, which is said after the rest."""
        from snaptool.operations.shown import values_of

        values = values_of(self.opened, asked, self.revision, skip_hash_check=skip_hash_check)
        first = next(values, None)
        if first is None and output in {"text", "name"}:
            for kind in asked.kinds:
                self.terminal.note(absent_note(self.opened, kind, asked.namespace_of(kind), self.keyring))
            return exits.DONE
        values = itertools.chain([] if first is None else [first], values)
        if output == "name":
            for value in values:
                echo(self._name(value))
            return exits.DONE
        if output == "text":
            for number, (resource, group) in enumerate(itertools.groupby(values, self._resource)):
                if number:
                    echo()
                self._print_table(self._shown(group), resource, spread=asked.everywhere or not asked.kinds)
        else:
            found = (shown for _, shown in self._shown(values) if shown is not None and shown.is_object)
            # As kubectl: all of one type are a List. Several that were named stand one after the other.
            apart = output == "yaml" and (len(asked.kinds) > 1 or not asked.kinds)
            print_objects((shown.tree for shown in found), output, apart=apart)
        return self._verdict()

    def _verdict(self) -> int:
        from snaptool.operations.inside import where_configurations_are
        from snaptool.operations.reasons import of_each

        if self.odd:
            values = counted(self.odd, "value is", "values are")
            self.terminal.note(f"{values} undecodable: lists of the resource fail; name one to see it as it is")
        for (sentence, server), count in self.lost.items():
            self.terminal.note(f"{count:,} lost: {of_each(sentence, count)}")
            self.terminal.note(f"  kube-apiserver says: {server}")
        if self.lost and self.keyring is None:
            where = where_configurations_are(self.opened)
            self.terminal.note(f"give the EncryptionConfiguration of the cluster {where}")
        return exits.FINDINGS if self.lost or self.odd else exits.DONE

    def _shown(self, values: Iterator[StoredValue]) -> Iterator[tuple[StoredValue, ShownObject | None]]:
        from snaptool.operations.object import ValueLost, open_found
        from snaptool.operations.shown import show_object

        for value in values:
            shown = None
            try:
                found = open_found(self.opened, value, self.keyring, self.defined)
                shown = show_object(value, found.plaintext, managed_fields=self.managed_fields)
            except ValueLost as lost:
                why = (lost.sentence, lost.server)
                if why in self.lost or len(self.lost) < SHOWN_REASONS:
                    self.lost[why] = self.lost.get(why, 0) + 1
            else:
                self.odd += found.fault is not None
            yield value, shown

    def _print_table(
        self, rows: Iterator[tuple[StoredValue, ShownObject | None]], resource: str, *, spread: bool
    ) -> None:
        """Print objects of one resource. `spread`: over namespaces, if they are in one."""
        from snaptool.kube.keys import parse_key

        first = next(rows)
        key = parse_key(first[0].key, self.opened.prefixes)
        spread = spread and key is not None and key.namespace is not None
        columns = _COLUMNS.get(resource, ())
        headings = [*(["NAMESPACE"] if spread else []), "NAME", *(heading for heading, _ in columns), "CREATED"]
        cells = (self._cells(*row, columns, spread=spread) for row in itertools.chain([first], rows))
        print_table(headings, cells)

    def _cells(
        self, value: StoredValue, shown: ShownObject | None, columns: Sequence[tuple[str, str]], *, spread: bool
    ) -> list[object]:
        from snaptool.kube.keys import parse_key

        key = parse_key(value.key, self.opened.prefixes)
        name, namespace = (printable(value.key), None) if key is None else (key.name, key.namespace)
        tree = {} if shown is None else shown.tree
        created = "LOST" if shown is None else _at(tree, "metadata.creationTimestamp")
        if shown is not None and not shown.is_object:
            created = "UNDECODABLE"
        found = [None if shown is None or not shown.is_object else _at(tree, path) for _, path in columns]
        cells = [*([namespace] if spread else []), name, *found, created]
        return [None if cell is None else str(cell) for cell in cells]

    def _resource(self, value: StoredValue) -> str:
        from snaptool.kube.keys import parse_key

        key = parse_key(value.key, self.opened.prefixes)
        return "" if key is None else key.group_resource

    def _name(self, value: StoredValue) -> str:
        from snaptool.kube.keys import parse_key

        key = parse_key(value.key, self.opened.prefixes)
        return printable(value.key) if key is None else short_name(key.group_resource, key.name)


def _at(tree: Any, path: str) -> object:
    """Return what stands at a path, None where nothing does; `#data` counts the members of `data`."""
    for name in path.removeprefix("#").split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    if path.startswith("#"):
        return len(tree) if isinstance(tree, dict) else 0
    return tree if isinstance(tree, str | int) else None
