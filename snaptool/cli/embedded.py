"""`--embedded-config` and `--token-file`: reading with the configuration that a backup carries inside."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snaptool.errors import InputError
from snaptool.inputs import read_input

if TYPE_CHECKING:
    from snaptool import documents
    from snaptool.cli.render import Terminal
    from snaptool.embedded.found import Embedded, Recovered
    from snaptool.operations.opening import OpenedSnapshot
    from snaptool.providers.config.model import EncryptionConfig

_LARGEST_TOKEN = 4096


class Embedding:
    """Whether to read with what a snapshot carries, and the server token that opens it."""

    def __init__(self, *, wanted: bool, token: str | None, static_resources: Path | None = None) -> None:
        self.wanted = wanted
        self.token = token
        self._static_resources = static_resources
        self._found: dict[int, Recovered] = {}

    def find(self, opened: OpenedSnapshot, configs: Sequence[EncryptionConfig] = ()) -> Recovered:
        """Find and open what the snapshot carries, once. Raises TokenFormat and TokenProblem."""
        from snaptool.embedded.found import find_embedded

        if id(opened) not in self._found:
            files = []
            if opened.container is not None or self._static_resources is not None:
                from snaptool.operations.embedding import carried_files, static_resources

                files = carried_files(opened)
                if self._static_resources is not None:
                    files.append(static_resources(self._static_resources))
            self._found[id(opened)] = find_embedded(opened.places, token=self.token, configs=configs, files=files)
        return self._found[id(opened)]

    def places(self, opened: OpenedSnapshot, configs: Sequence[EncryptionConfig] = ()) -> tuple[Embedded, ...]:
        """Return what the snapshot carries, opened where that can be. Raises as `find`."""
        if self.token is None and opened.container is None and not opened.places.live():
            return ()  # as most do, and then nothing is loaded that reads it
        return self.find(opened, configs).places

    def read_with(
        self, opened: OpenedSnapshot, configs: Sequence[EncryptionConfig], terminal: Terminal
    ) -> tuple[EncryptionConfig, ...]:
        """Return the configurations to read with: those given, and what the snapshot carries if that is wanted.

        Raises InputError when it carries nothing, EmbeddedClosed when all of it stays closed.
        """
        if not self.wanted:
            return tuple(configs)
        from snaptool.operations.embedding import read_inside

        found = self.find(opened, configs)
        for note in found.notes:
            terminal.note(note)
        return read_inside(opened, found, configs)


def embedded_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--embedded-config` and `--token-file`; the command receives one `embedding`."""

    @click.option(
        "--embedded-config",
        "wanted",
        is_flag=True,
        help="Read with the configuration that the backup carries inside (k3s, RKE2, RKE1, OpenShift, Omni).",
    )
    @token_option
    @functools.wraps(command)
    def wrapped(*args: Any, wanted: bool, token_file: str | None, **kwargs: Any) -> Any:
        token = read_token(token_file) if token_file is not None else None
        return command(*args, embedding=Embedding(wanted=wanted, token=token), **kwargs)

    return wrapped


def token_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--token-file`."""
    return click.option(
        "--token-file",
        metavar="FILE",
        help="Server token of k3s or RKE2 (server/token), which opens the configuration in the snapshot.",
    )(command)


def read_token(path: str) -> str:
    """Read a token, without the line break behind it. Raises InputError and TokenFormat."""
    from snaptool.embedded.k3s import passphrases

    content = read_input(path, _LARGEST_TOKEN, "token", secret=True, hint="name the file server/token")
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text", hint="name the file server/token", code="token_format") from None
    passphrases(text)
    return text


def embedded_document(places: Sequence[Embedded]) -> list[documents.Embedded]:
    """Return the JSON form of what a snapshot carries."""
    return [
        {
            "kind": place.kind,
            "place": place.place,
            "opens": place.opens,
            "state": place.state,
            "time": place.time,
            "revision": place.revision,
            "keys": [{"provider": provider, "name": name} for provider, name in place.keys],
            "code": place.code or None,
            "reason": place.reason or None,
        }
        for place in places
    ]


def embedded_lines(places: Sequence[Embedded]) -> list[str]:
    """Say in one line each what a snapshot carries; OpenShift's many Secrets in one together."""
    lines = []
    for place in places:
        if place.kind != "openshift" or place.config is not None:
            keys = ", ".join(f"{provider} {name}" for provider, name in place.keys)
            opens = f"opens {place.opens}" if place.opens else "closed"
            opens = "a copy" if place.code == "embedded_config_copy" else opens
            parts = [opens, place.reason, f"keys {keys}" if keys else "", f"state {place.state}" if place.state else ""]
            lines.append(f"embedded ({place.kind}) {place.place}: {'; '.join(part for part in parts if part)}")
    secrets = [place for place in places if place.kind == "openshift" and place.config is None]
    if secrets:
        shut = sum(place.opens is None for place in secrets)
        state = f"{shut} of them closed" if shut else "all open"
        lines.append(f"embedded (openshift): {len(secrets)} Secrets with keys and configurations, {state}")
    return lines
