"""What a user says: `NAME=KIND[:WHERE][?OPTION=VALUE&…]`, checked before anything is read.

NAME ends at the first `=`; OPTION=VALUE is percent-decoded as in a query. No message shows a VALUE: it may be a secret
that was put there by mistake. Source: docs/clouds.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote

from snaptool.errors import InputError
from snaptool.providers.provider import Api


class BadDirect(InputError):
    """What is said of a key service does not name one, or not one that can do what is asked of it."""


@dataclass(frozen=True, slots=True)
class DirectKms:
    """A key service by its kind, the key in it (empty: the wrapped keys name it), and options in the order given."""

    name: str
    kind: str
    where: str = ""
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def option(self, name: str, default: str = "") -> str:
        """Return the value of an option that is given once."""
        return next((value for key, value in self.options if key == name), default)

    def every(self, name: str) -> tuple[str, ...]:
        """Return the values of an option that may be repeated."""
        return tuple(value for key, value in self.options if key == name)

    @property
    def service(self) -> str:
        """What people call the service."""
        return KINDS[self.kind].service

    @property
    def keys_a_call(self) -> int:
        """How many keys it can be asked for in one call."""
        return KINDS[self.kind].keys_a_call

    @property
    def writes(self) -> bool:
        """Does it name the key to write with?"""
        return bool(self.where)

    @property
    def words(self) -> str:
        """What `parse_direct` reads again as this."""
        options = "&".join(f"{quote(name, safe='.')}={quote(value, safe='/:.')}" for name, value in self.options)
        where = f":{self.where}" if self.where else ""
        return f"{self.name}={self.kind}{where}" + (f"?{options}" if options else "")

    def require_api(self, api: Api) -> None:
        """Refuse a form that plugins of this API do not have. Raises BadDirect."""
        only = _ONLY.get(self.option("plugin"))
        if only is not None and only is not api:
            raise BadDirect(
                f"KMS provider {self.name!r} has apiVersion {api}, and plugin={self.option('plugin')} is for {only}",
                hint="name the plugin that wrote the values; without plugin= the usual form is taken",
            )

    def require_key(self) -> None:
        """Refuse to write without a key. Raises BadDirect."""
        if not self.writes:
            raise BadDirect(
                f"KMS provider {self.name!r} is to write, and {self.kind} is given no key to write with",
                hint=f"name it: --new-kms-direct {self.name}={self.kind}:{KINDS[self.kind].form}",
            )


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind: how a key is written, which texts are one, which options it takes, and how often.

    `keys_a_call`: for how many it can be asked at a time.
    """

    service: str
    extra: str
    form: str
    fits: Callable[[str], object]
    needs_where: bool = False
    options: frozenset[str] = frozenset()
    repeated: frozenset[str] = frozenset()
    plugins: tuple[str, ...] = ()
    keys_a_call: int = 1


_GOOGLE_KEY: Final = re.compile(r"projects/[^/:?#]+/locations/[^/:?#]+/keyRings/[^/:?#]+/cryptoKeys/[^/:?#]+")
_AZURE_KEY: Final = re.compile(r"https://[^/?#@\s]+/keys/[^/?#\s]+(?:/[^/?#\s]+)?/?")
_VAULT_KEY: Final = re.compile(r"[^?#\s]*[^/?#\s]/[^/?#\s]+")
_AWS_KEY: Final = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(?:key|alias)/\S+|alias/\S+|[A-Za-z0-9-]+")
_IDENTITY: Final = frozenset({"cluster_id", "instance_id", "provider_name", "mount_id", "lineage_id", "namespace"})

KINDS: Final = {
    "aws": _Kind(
        "AWS KMS",
        "aws",
        "arn:aws:kms:REGION:ACCOUNT:key/ID",
        _AWS_KEY.fullmatch,
        options=frozenset({"region", "profile", "pin"}),
    ),
    "gcp": _Kind(
        "Google Cloud KMS",
        "gcp",
        "projects/P/locations/L/keyRings/R/cryptoKeys/K",
        _GOOGLE_KEY.fullmatch,
        options=frozenset({"suffix", "endpoint"}),
    ),
    "azure": _Kind(
        "Azure Key Vault",
        "azure",
        "https://VAULT.vault.azure.net/keys/NAME/VERSION",
        _AZURE_KEY.fullmatch,
        needs_where=True,
        options=frozenset({"plugin"}),
        repeated=frozenset({"version"}),
        plugins=("openshift",),
    ),
    "vault": _Kind(
        "Vault transit",
        "vault",
        "MOUNT/KEY",
        _VAULT_KEY.fullmatch,
        needs_where=True,
        options=frozenset({"plugin"}) | _IDENTITY,
        plugins=("plain", "kleidi", "trousseau", "oracle", "openbao"),
        keys_a_call=1000,
    ),
}
_ONLY: Final = {"kleidi": Api.V2, "openbao": Api.V2, "openshift": Api.V2, "trousseau": Api.V1, "oracle": Api.V1}
_FORM: Final = "NAME=KIND[:WHERE][?OPTION=VALUE&…]"


def parse_direct(text: str) -> DirectKms:
    """Read what a user says of one provider. Raises BadDirect."""
    name, equals, rest = text.partition("=")
    said, marked, query = rest.partition("?")
    kind, _, where = said.partition(":")
    if not equals or not name or not kind:
        raise BadDirect(f"a key service is {_FORM}, and NAME or KIND is missing", hint=f"KIND is {_listed(KINDS)}")
    if kind not in KINDS:
        shown = repr(kind) if re.fullmatch("[a-z-]{1,20}", kind) else "what is given"
        raise BadDirect(f"KMS provider {name!r}: {shown} is not a kind of key service", hint=f"it is {_listed(KINDS)}")
    known = KINDS[kind]
    if (where and not known.fits(where)) or (known.needs_where and not where):
        raise BadDirect(
            f"KMS provider {name!r}: {kind} " + ("is given something else than a key" if where else "needs a key"),
            hint=f"write {name}={kind}:{known.form}",
        )
    options = tuple(parse_qsl(query, keep_blank_values=True)) if marked else ()
    _require_options(name, kind, options)
    made = DirectKms(name, kind, where.rstrip("/"), options)
    _require_sense(made)
    return made


def _require_options(name: str, kind: str, options: tuple[tuple[str, str], ...]) -> None:
    known = KINDS[kind]
    seen: set[str] = set()
    for option, value in options:
        named = option if re.fullmatch(r"[A-Za-z_.]{1,40}", option) else "…"
        of_context = kind == "aws" and option.startswith("context.") and len(option) > len("context.")
        if not (option in known.options | known.repeated or of_context):
            takes = _listed(sorted(known.options | known.repeated) + (["context.KEY"] if kind == "aws" else []))
            raise BadDirect(
                f"KMS provider {name!r}: {kind} takes no option {named!r}",
                hint=f"it takes {takes}; credentials come from where the service's own tools take them",
            )
        if option in seen and option not in known.repeated:
            raise BadDirect(f"KMS provider {name!r}: the option {named!r} is given twice", hint="give it once")
        if not value and option != "pin" and not of_context:
            raise BadDirect(f"KMS provider {name!r}: the option {named!r} has no value", hint=f"write {named}=VALUE")
        seen.add(option)


def _require_sense(direct: DirectKms) -> None:
    known, plugin = KINDS[direct.kind], direct.option("plugin")
    if plugin and plugin not in known.plugins:
        raise BadDirect(
            f"KMS provider {direct.name!r}: {direct.kind} knows no plugin of that name",
            hint=f"plugin is {_listed(known.plugins)}",
        )
    if direct.kind == "vault" and plugin == "openbao":
        missing = [one for one in ("cluster_id", "instance_id") if not direct.option(one)]
        if missing:
            raise BadDirect(
                f"KMS provider {direct.name!r}: plugin=openbao needs {_listed(missing, 'and')}",
                hint="they are in the configuration of the plugin, and not in the snapshot",
            )
    elif direct.kind == "vault" and any(direct.option(one) for one in _IDENTITY):
        raise BadDirect(
            f"KMS provider {direct.name!r}: {_listed(sorted(_IDENTITY), 'and')} belong to plugin=openbao",
            hint="add plugin=openbao, or leave them out",
        )
    if direct.option("pin") not in {"", "1", "true"} or ("pin" in dict(direct.options) and not direct.where):
        raise BadDirect(f"KMS provider {direct.name!r}: pin stands alone, and behind a key", hint="name the key")
    if direct.kind == "azure" and direct.every("version") and direct.where.count("/") > 4:
        raise BadDirect(
            f"KMS provider {direct.name!r}: versions are given both in the key and as options",
            hint="write …/keys/NAME?version=ONE&version=OTHER",
        )
    if direct.option("endpoint") and not re.fullmatch(
        r"http://(?:127\.[0-9.]+|localhost|\[::1\])(?::[0-9]+)?/?", direct.option("endpoint")
    ):
        raise BadDirect(
            f"KMS provider {direct.name!r}: endpoint is for a server on this machine alone, in tests",
            hint="leave it out: the service is found by itself",
        )


def _listed(words: object, joint: str = "or") -> str:
    assert isinstance(words, (dict, list, tuple))
    every = list(words)
    return every[0] if len(every) == 1 else f"{', '.join(every[:-1])} {joint} {every[-1]}"
