"""The last words of a command: the verdict, what to try before anything is believed lost, and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snaptool.cli.render import echo, print_command, print_sentence
from snaptool.stores import shown
from snaptool.text import counted, quoted

if TYPE_CHECKING:
    from snaptool import documents
    from snaptool.operations.kms_options import KmsOptions
    from snaptool.operations.likelier import Cause
    from snaptool.operations.older import OlderValues
    from snaptool.operations.verdict import Verdict
    from snaptool.providers.kms_service import KmsError

SHOWN = 20


def summary_document(verdict: Verdict) -> documents.Summary:
    """Return the JSON form of a verdict."""
    return {
        "objects_lost": verdict.objects_lost,
        "objects_with_older": verdict.objects_with_older,
        "objects_deleted": verdict.objects_deleted,
        "histories_cut": verdict.histories_cut,
        "values_by_key": [
            {
                "provider": one.provider,
                "key_name": one.key_name or None,
                "key_name_certain": not one.goes_on,
                "values": one.values,
            }
            for one in verdict.values_by_key
        ],
    }


def causes_document(causes: Sequence[Cause]) -> list[documents.Cause]:
    """Return the JSON form of what is likelier than a lost key."""
    return [{"problem": one.problem, "remedy": one.remedy, "values": one.values} for one in causes]


def print_causes(causes: Sequence[Cause]) -> None:
    """Say what is likelier than a lost key, with what to try: before anything else is said about what is lost."""
    for cause in causes:
        print_sentence(f"likelier than a lost key: {cause.problem}")
        print_sentence(f"    try this first: {cause.remedy}")


def print_older(older: OlderValues, source: str, prefixes: Sequence[str], reading: Sequence[str]) -> None:
    """Name the newest older revisions that open, each with the command that shows it."""
    if not older.found:
        return
    count = len(older.found)
    print_sentence(f"older revisions that open: {count:,}; each shown by")
    for key, one in list(older.found.items())[:SHOWN]:
        print_command(get_command(one.place or source, key, prefixes, one.revision, reading))
    if count > SHOWN:
        echo(f"    ... and {count - SHOWN:,} more")


@dataclass(frozen=True, slots=True)
class Following:
    """What to do next: a sentence, and the words of a command, each of which stays whole."""

    sentence: str = ""
    command: tuple[str, ...] = ()


NOTHING = Following()


def print_verdict(verdict: Verdict, following: Following = NOTHING) -> None:
    """Print the verdict, and what to do next."""
    echo()
    for sentence in verdict.sentences:
        print_sentence(f"{sentence[0].upper()}{sentence[1:]}.")
    if following.sentence:
        print_sentence(f"Next: {following.sentence}")
    if following.command:
        print_command(following.command)


def get_command(
    source: str, key: bytes, prefixes: Sequence[str], revision: int, reading: Sequence[str]
) -> tuple[str, ...]:
    """Return the command that shows an object as it was at a revision."""
    from snaptool.kube.keys import parse_key

    parsed = parse_key(key, prefixes)
    namespace: tuple[str, ...] = ()
    words = [key.decode(errors="surrogateescape")]
    if parsed is not None and parsed.name and parsed.group is not None:
        words = [parsed.group_resource, parsed.name]
        namespace = (f"-n {shlex.quote(parsed.namespace)}",) if parsed.namespace else ()
    return ("snaptool get", quoted(source), *map(shlex.quote, words), *namespace, f"--revision {revision}", *reading)


def reading_words(
    configs: Sequence[str], prefixes: Sequence[str] = (), *, embedded: bool = False, kms: KmsOptions | None = None
) -> tuple[str, ...]:
    """Return the options by which a command reads, as they are to be typed again."""
    words = [f"--config {quoted(shown(config))}" for config in configs]
    words += ["--embedded-config"] if embedded else []
    if kms is not None:
        words += [f"--kms-endpoint {quoted(f'{name}={url}')}" for name, url in kms.endpoints.items()]
        words += [f"--kms-direct {quoted(direct.words)}" for direct in kms.direct.values()]
    return (*words, *(f"--etcd-prefix {quoted(prefix)}" for prefix in prefixes))


def _target_for(source: str) -> str:
    """Name a target that is not the source."""
    return "new.db" if Path(source).name != "new.db" else "newer.db"


def after_finding(
    verdict: Verdict,
    causes: Sequence[Cause],
    source: str,
    reading: Sequence[str],
    *,
    target: str = "",
    writing: Sequence[str] = (),
    outage: KmsError | None = None,
) -> Following:
    """Say what to do about what is lost, when nothing was changed: nothing where nothing is.

    `outage`: what a key service failed with, before which nothing counts as lost for good.
    """
    if not (verdict.objects_lost or verdict.histories_cut) or not reading:
        return NOTHING
    if outage is not None:
        return Following(
            f"nothing of it is lost for good while the key service of {outage.provider!r} may still answer; do what is "
            "said of it above, then run this command again."
        )
    if any(cause.inside for cause in causes):
        options = next((cause.options for cause in causes if cause.options), ())
        ways = [option for option in options if option not in reading]
        sentence = "nothing of it is lost for good while its key may be in the snapshot itself; "
        if not ways:
            return Following(f"{sentence}do what stands above.")
        return Following(f"{sentence}read with it:", ("snaptool inspect", quoted(source), *reading, *ways))
    option = "older" if verdict.objects_with_older else "delete"
    if verdict.older_elsewhere:
        option = "older --older-from EARLIER-BACKUP"
    command = (
        "snaptool rewrite",
        quoted(source),
        quoted(target or _target_for(source)),
        *reading,
        *writing,
        f"--undecryptable {option}",
    )
    back, rest = verdict.objects_with_older, verdict.objects_lost - verdict.objects_with_older
    cut = verdict.histories_cut
    does = [f"gives {counted(back, 'object its', 'objects their')} older revision back"] if back else []
    if verdict.older_elsewhere:
        elsewhere = counted(verdict.older_elsewhere, "object")
        does.append(f"takes what an earlier backup of the cluster has of {elsewhere}")
    does += [f"deletes {'at most ' * bool(verdict.older_elsewhere)}{counted(rest, 'object')}"] if rest else []
    does += [f"cuts {counted(cut, 'history', 'histories')}"] if cut else []
    first = "try what stands above first" if causes else "look for the missing key, and give it with a further --config"
    what = " and ".join([", ".join(does[:-1]), does[-1]] if len(does) > 1 else does)
    return Following(f"{first}; only if that fails, this {what}:", command)
