"""What an export says about itself: notes grouped, and the commands that apply it, computed from what was written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from snaptool.kube.export import CLUSTER, CRDS, CREATE, NAMESPACES, OWNED, WEBHOOK_FOLDER, Kind, Leave
from snaptool.operations.export.choosing import Choice, Chosen
from snaptool.operations.export.request import Cluster, ExportRequest
from snaptool.text import counted, quoted

_NAMED = 5
_MOST_GROUPS = 400
SHOWN_OF_A_KIND = 20


@dataclass(slots=True)
class NoteBook:
    """Notes on objects, those that say the same together. `beyond`: how many were not kept."""

    groups: dict[tuple[str, str], tuple[str, list[str], list[int]]] = field(default_factory=dict)
    beyond: int = 0

    def add(self, kind: Kind, name: str, text: str, group: str) -> None:
        """Note something about one object. `group`: the words that it shares with others."""
        key = (str(kind), group)
        if key not in self.groups and len(self.groups) >= _MOST_GROUPS:
            self.beyond += 1
            return
        _, names, count = self.groups.setdefault(key, (text, [], [0]))
        count[0] += 1
        if len(names) < _NAMED:
            names.append(name)

    def lines(self) -> Iterator[str]:
        """Yield one sentence for each group; of a kind with very many, the first ones."""
        shown: Counter[str] = Counter()
        hidden = self.beyond
        for (kind, group), (text, names, (count,)) in self.groups.items():
            shown[kind] += 1
            if shown[kind] > SHOWN_OF_A_KIND:
                hidden += count
                continue
            more = f" and {count - len(names):,} more" if count > len(names) else ""
            yield f"{', '.join(names)}{more}: {text if count == 1 else group}"
        if hidden:
            yield f"{counted(hidden, 'more note')}; --report has all of them"


def general_notes(chosen: Chosen, request: ExportRequest, crds: dict[str, str], whole: dict[str, int]) -> Iterator[str]:
    """Yield what is not about one exported object.

    `crds`: what is known about definitions that are not here; `whole`: revisions before deletions of namespaces.
    """
    if request.raw:
        return
    for namespace, since in chosen.facts.terminating.items():
        if request.includes(namespace) and namespace in chosen.found_namespaces:
            yield (
                f"namespace {namespace} was being deleted since {since}: what had been deleted before the backup is "
                f"not in it{f'; --revision {whole[namespace]} is from before' if namespace in whole else ''}"
            )
    yield from _webhook_notes(chosen)
    yield from _definition_notes(chosen, crds)
    if request.scope is Cluster.RELATED and chosen.unfollowed:
        yield (
            f"{counted(chosen.unfollowed, 'cluster-scoped custom resource')} in this snapshot: whether one belongs to "
            "the namespace is not known; name the type to export it"
        )
    unknown = _unknown_kinds(chosen)
    if unknown:
        count, kinds = unknown
        yield (
            f"{counted(count, 'object')} of kinds that snaptool does not know ({', '.join(kinds)}) "
            f"{'is' if count == 1 else 'are'} not in the manifests: `snaptool get SNAPSHOT KEY -o value` shows bytes"
        )


def _webhook_notes(chosen: Chosen) -> Iterator[str]:
    services = {f"{namespace}/{name}" for namespace, name in chosen.services}
    for hook in chosen.webhooks:
        if hook.service in services:
            name = hook.service.partition("/")[2]
            refused = f"{hook.matches} are refused" if hook.failure_policy == "Fail" else f"{hook.matches} pass unseen"
            yield (
                f"{hook.configuration} (failurePolicy {hook.failure_policy}, {hook.matches}) calls Service "
                f"{hook.service}, which is in this export: where it is still in the cluster, {refused} until {name} "
                "runs; delete it first, apply it last"
            )
    for definition in chosen.definitions.values():
        if definition.webhook in services:
            yield (
                f"CustomResourceDefinition {definition.resource} converts by Service {definition.webhook}, which is in "
                "this export: its objects cannot be read in other versions until that runs"
            )


def _definition_notes(chosen: Chosen, crds: dict[str, str]) -> Iterator[str]:
    missing: Counter[str] = Counter()
    for index in chosen.with_choice(Choice.EXPORT):
        path = chosen.rows.paths[chosen.rows.path[index]]
        if not chosen.kinds[path].built_in and path not in chosen.definitions:
            missing[".".join(reversed(path.split("/")))] += 1
    for resource, count in missing.items():
        yield (
            f"{resource}: {counted(count, 'object')}, and no CustomResourceDefinition in this snapshot"
            f"{crds.get(resource, '')}: kubectl cannot apply {'it' if count == 1 else 'them'} without it"
        )


def _unknown_kinds(chosen: Chosen) -> tuple[int, list[str]] | None:
    kinds: Counter[str] = Counter()
    for index in chosen.with_choice(*_UNKNOWN):
        kinds[str(chosen.kinds[chosen.rows.paths[chosen.rows.path[index]]])] += 1
    return (kinds.total(), list(kinds)) if kinds else None


_UNKNOWN = (Choice.LEFT + tuple(Leave).index(Leave.UNKNOWN_KIND),)


# -- commands --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Written:
    """What was written, as far as the commands need it. `folders`: those of a tree that have files."""

    folders: set[str] = field(default_factory=set)
    volumes: list[str] = field(default_factory=list)
    definitions: int = 0
    custom: int = 0


def commands(written: Written, target: str | None, *, tree: bool) -> Iterator[tuple[str, str]]:
    """Yield the commands that apply an export, each with what is said before it. `target`: None is stdout."""
    if tree and target is not None:
        yield from _tree_commands(written, target)
    else:
        yield from _stream_commands(written, target)
    for name in written.volumes[:SHOWN_OF_A_KIND]:
        patch = '[{"op":"remove","path":"/spec/claimRef/uid"}]'
        yield "only where the volume is Released", f"kubectl patch pv {quoted(name)} --type json -p '{patch}'"
    if len(written.volumes) > SHOWN_OF_A_KIND:
        yield (
            f"and {counted(len(written.volumes) - SHOWN_OF_A_KIND, 'more volume')} likewise; --report has all commands",
            "",
        )


def _tree_commands(written: Written, target: str) -> Iterator[tuple[str, str]]:
    def path(folder: str = "") -> str:
        return quoted(f"{target.rstrip('/')}/{folder}" if folder else target)

    if CRDS in written.folders:
        crds = path(CRDS)
        wait = f"kubectl wait --for=condition=Established --timeout=60s -f {crds}"
        yield (
            "",
            f"kubectl apply --server-side -f {crds} && {wait}",
        )
    applied = [folder for folder in (CRDS, CLUSTER, NAMESPACES, WEBHOOK_FOLDER) if folder in written.folders]
    if written.folders & {CREATE, OWNED}:
        if applied != [CRDS]:
            named = " ".join(f"-f {path(folder)}" for folder in applied)
            yield from [("", f"kubectl apply --server-side -R {named}")] if applied else []
    elif applied:
        yield "", f"kubectl apply --server-side -R -f {path()}"
    if CREATE in written.folders:
        yield "what server-side apply refuses", f"kubectl create -f {path(CREATE)}"


def _stream_commands(written: Written, target: str | None) -> Iterator[tuple[str, str]]:
    file = "-" if target is None else quoted(target)
    before = "through a pipe" if target is None else ""
    if written.definitions and written.custom:
        before = "twice: the first time kubectl does not know the kinds that it has just created" if target else before
    yield before, f"kubectl apply --server-side -f {file}"
    if CREATE in written.folders:
        yield "some of these objects it refuses, see above: --to DIRECTORY puts them apart, for `kubectl create`", ""
