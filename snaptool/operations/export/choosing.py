"""Which of the rows are exported, which are left out and why: two passes over them before anything is written.

The first collects facts about other objects that decide about one (is its namespace being deleted, has its Service a
selector, which tokens does its ServiceAccount list, what does its definition say). The second decides, and notes what
the exported objects name; then those are asked about that may be related. What is kept for an object is a byte for the
decision and eight for its uid.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import blake2b

from snaptool.kube.export import (
    CANDIDATES,
    CRD,
    GENERATED_RESOURCES,
    NAMESPACE,
    SECRET,
    WEBHOOKS,
    Definition,
    Facts,
    Kind,
    Leave,
    References,
    Tree,
    Webhook,
    at,
    controller_of,
    is_helm_release,
    is_token,
    read_definition,
    reason_to_leave,
    text,
    webhooks_of,
)
from snaptool.kube.keys import RESOURCE_TYPES, ResourceKey
from snaptool.operations.export.request import Cluster, ExportRequest, Secrets, Volumes
from snaptool.operations.export.rows import Reader, Row, Rows, Seen, known_type


class Choice(IntEnum):
    """What becomes of a row. Numbers from LEFT on stand for the reasons, in the order of `Leave`."""

    UNSEEN = 0
    EXPORT = 1
    APART = 2
    """Made by an exported owner: goes to a folder of its own."""
    LOST = 3
    LEFT = 4


_REASONS = tuple(Leave)
_CANDIDATE_PATHS = {"rolebindings", "roles"}


@dataclass(slots=True)
class Chosen:
    """What became of every row, and what was learnt on the way.

    `left_names`: what is left out and nobody makes again. `kinds`: the kind of each resource, by path. `definitions`:
    by group and plural. `uids`: numbers of those of what comes back, sorted. `unfollowed`: cluster-scoped custom
    resources that nobody looked at.
    """

    rows: Rows
    choices: array[int]
    facts: Facts = field(default_factory=Facts)
    kinds: dict[str, Kind] = field(default_factory=dict)
    definitions: dict[str, Definition] = field(default_factory=dict)
    webhooks: list[Webhook] = field(default_factory=list)
    services: set[tuple[str, str]] = field(default_factory=set)
    found_namespaces: set[str] = field(default_factory=set)
    left_names: dict[tuple[str, str, str], Leave] = field(default_factory=dict)
    unfollowed: int = 0
    secrets: int = 0
    uids: array[int] = field(default_factory=lambda: array("Q"))

    def reason(self, index: int) -> Leave | None:
        """Return why a row is left out, None if it is not."""
        choice = self.choices[index]
        return _REASONS[choice - Choice.LEFT] if choice >= Choice.LEFT else None

    def with_choice(self, *wanted: int) -> Iterator[int]:
        """Yield the rows of a choice."""
        return (index for index, choice in enumerate(self.choices) if choice in wanted)

    def comes_back(self, uid: str) -> bool:
        """Say whether an owner of that uid is exported, or made again by what is."""
        number = _uid_number(uid)
        place = bisect_left(self.uids, number)
        return place < len(self.uids) and self.uids[place] == number

    def definition_of(self, row: Row) -> Definition | None:
        """Return the definition of a custom resource."""
        return self.definitions.get(row.key.path)


def wants(request: ExportRequest, key: ResourceKey) -> bool:
    """Say whether a row has to be looked at at all."""
    known = known_type(key)
    if key.namespace is not None:
        if request.includes(key.namespace):
            return True
        return request.scope is Cluster.RELATED and key.path in _CANDIDATE_PATHS
    if key.path in GENERATED_RESOURCES:
        return request.scope is Cluster.ALL and not request.types
    return known is not None or request.scope is not Cluster.NONE or request.names(key)


def choose(rows: Rows, request: ExportRequest, reader: Reader) -> Chosen:
    """Decide about every row."""
    chosen = Chosen(rows, array("b", bytes(len(rows))))
    work = _Choosing(chosen, request, reader)
    work.learn_facts()
    work.decide()
    work.ask_candidates()
    work.settle_owned()
    work.bring_definitions()
    return chosen


_FACT_PATHS = frozenset(
    {
        "namespaces",
        "apiextensions.k8s.io/customresourcedefinitions",
        "validatingwebhookconfigurations",
        "mutatingwebhookconfigurations",
        "services/specs",
        "serviceaccounts",
        "secrets",
    }
)


class _Choosing:
    def __init__(self, chosen: Chosen, request: ExportRequest, reader: Reader) -> None:
        self._chosen = chosen
        self._request = request
        self._reader = reader
        self._references = References()
        self._coming: array[int] = array("Q")
        self._owned: list[tuple[int, str]] = []
        self._definition_rows: dict[str, int] = {}

    # -- facts

    def learn_facts(self) -> None:
        """Read what decides about other objects. What does not open here is noted when it is asked for itself."""
        facts, request = self._chosen.facts, self._request
        tokens: list[tuple[str, Tree]] = []
        for row in self._chosen.rows.of_paths(_FACT_PATHS):
            key = row.key
            if row.namespace and not request.includes(row.namespace):
                continue
            if key.path == "secrets" and request.types and not any(one.covers_type(key) for one in request.types):
                continue
            seen = self._read(row, quietly=not self._selected(key))
            if seen is None:
                continue
            facts.learn(seen.kind, row.namespace, seen.tree)
            if seen.kind == CRD:
                self._learn_definition(row, seen.tree)
            elif seen.kind in WEBHOOKS:
                self._chosen.webhooks += webhooks_of(seen.kind, seen.tree)
            elif key.path == "secrets" and at(seen.tree, "type") in _TOKEN_TYPES:
                seen.tree.pop("data", None)
                tokens.append((row.namespace, seen.tree))
        facts.tokens.update(
            (namespace, text(tree, "metadata", "name"))
            for namespace, tree in tokens
            if is_token(tree, namespace, facts)
        )

    def _learn_definition(self, row: Row, tree: Tree) -> None:
        definition = read_definition(tree)
        path = f"{definition.kind.group}/{definition.plural}"
        self._chosen.definitions[path] = definition
        self._definition_rows[path] = row.index

    def _read(self, row: Row, *, quietly: bool) -> Seen | None:
        known = dict(self._reader.lost), dict(self._reader.undecodable)
        seen = self._reader.read(row)
        if quietly and seen is None:
            self._reader.lost, self._reader.undecodable = known
        return seen

    # -- decisions

    def _selected(self, key: ResourceKey) -> bool:
        request = self._request
        if request.types:
            named = request.names(key)
            return named and (key.namespace is None or request.includes(key.namespace))
        if key.namespace is not None:
            return request.includes(key.namespace)
        if key.path == NAMESPACE_PATH:
            return request.includes(key.name) and request.scope is not Cluster.NONE
        return request.scope is Cluster.ALL

    def decide(self) -> None:
        """Decide about what is asked for itself."""
        for row in self._chosen.rows:
            key = row.key
            if row.namespace and self._request.includes(row.namespace):
                self._chosen.found_namespaces.add(row.namespace)
            elif key.path == NAMESPACE_PATH and self._request.includes(key.name):
                self._chosen.found_namespaces.add(key.name)
            if self._selected(key):
                self._decide(row)
            elif key.namespace is None and known_type(key) is None and key.path not in GENERATED_RESOURCES:
                self._chosen.unfollowed += 1

    def _decide(self, row: Row) -> None:
        seen = self._reader.read(row)
        if seen is None:
            lost = row.key.key in self._reader.lost
            self._set(row, Choice.LOST if lost else _left(Leave.UNDECODABLE))
            return
        self._take(seen)

    def _take(self, seen: Seen) -> None:
        row = seen.row
        self._chosen.kinds.setdefault(row.key.path, seen.kind)
        reason = self._reason(seen)
        self._set(row, Choice.EXPORT if reason is None else _left(reason))
        uid = text(seen.tree, "metadata", "uid")
        if reason in (None, Leave.OWNED) and uid:
            self._coming.append(_uid_number(uid))
        if reason is not None:
            if reason in _MISSED:
                self._chosen.left_names[row.key.path, row.namespace, row.key.name] = reason
            return
        controller = None if seen.kind.built_in or self._request.raw else controller_of(seen.tree)
        if controller is not None and not self._request.names(row.key):
            self._owned.append((row.index, text(controller, "uid")))
        if seen.kind == SECRET:
            self._chosen.secrets += 1
        elif seen.kind == Kind("Service", ""):
            self._chosen.services.add((row.namespace, row.key.name))
        self._references.learn(seen.kind, row.namespace, seen.tree)

    def _reason(self, seen: Seen) -> Leave | None:
        request, row = self._request, seen.row
        if seen.kind == SECRET and request.secrets is Secrets.SKIP:
            return Leave.SKIPPED
        if request.secrets is Secrets.REDACT and seen.kind.built_in and is_helm_release(seen.tree, seen.kind):
            return Leave.REDACTED
        if request.raw:
            return None
        if not seen.decoded.known or seen.decoded.undecoded is not None:
            return Leave.UNKNOWN_KIND
        if request.volumes is Volumes.NEW and seen.kind == Kind("PersistentVolume", ""):
            return Leave.SKIPPED
        if request.names(row.key):
            return None
        if row.key.path in GENERATED_RESOURCES:
            return Leave.GENERATED
        return reason_to_leave(seen.tree, seen.kind, row.namespace, self._chosen.facts)

    def _set(self, row: Row, choice: int) -> None:
        self._chosen.choices[row.index] = choice

    # -- related objects

    def ask_candidates(self) -> None:
        """Ask about cluster-scoped objects, and role bindings of other namespaces, whether they are related."""
        if self._request.scope is not Cluster.RELATED:
            return
        for kind in (NAMESPACE, *CANDIDATES):
            again = True
            while again:
                # Only roles name others of their kind: those are asked about until none is new.
                again = self._ask(kind) and kind.kind == "ClusterRole"

    def _ask(self, kind: Kind) -> bool:
        found = False
        for row in self._chosen.rows.of_paths([_path_of(kind)]):
            if self._chosen.choices[row.index] != Choice.UNSEEN:
                continue
            seen = self._read(row, quietly=False)
            if seen is None:
                self._set(row, Choice.LOST if row.key.key in self._reader.lost else _left(Leave.UNDECODABLE))
            elif seen.kind == kind and self._references.relates(kind, row.namespace, seen.tree):
                self._take(seen)
                found = True
        return found

    # -- owned custom resources

    def settle_owned(self) -> None:
        """Put custom resources apart whose controller's owner comes back too: it makes them again."""
        self._chosen.uids = array("Q", sorted(self._coming))
        for index, owner in self._owned:
            if self._chosen.comes_back(owner):
                self._chosen.choices[index] = Choice.APART

    def bring_definitions(self) -> None:
        """Bring the definitions of exported custom resources along."""
        if self._request.scope is Cluster.NONE:
            return
        rows, choices = self._chosen.rows, self._chosen.choices
        for path in {rows.paths[rows.path[index]] for index in self._chosen.with_choice(Choice.EXPORT)}:
            index = self._definition_rows.get(path)
            if index is not None and choices[index] == Choice.UNSEEN:
                self._decide(rows[index])


NAMESPACE_PATH = "namespaces"
_TOKEN_TYPES = ("kubernetes.io/service-account-token", "kubernetes.io/dockercfg", "bootstrap.kubernetes.io/token")


_MISSED = (Leave.TERMINATING, Leave.TOKEN, Leave.SKIPPED, Leave.REDACTED)
"""Reasons for which nobody makes the object again that another may name."""


def _left(reason: Leave) -> int:
    return Choice.LEFT + _REASONS.index(reason)


def _uid_number(uid: str) -> int:
    return int.from_bytes(blake2b(uid.encode(errors="surrogateescape"), digest_size=8).digest(), "big")


def _path_of(kind: Kind) -> str:
    return next(one.path for one in RESOURCE_TYPES if (one.kind, one.group) == (kind.kind, kind.group))
