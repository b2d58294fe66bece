"""What the wrapped keys of a snapshot are, before anybody is asked for one, and what asking will cost in calls.

A snapshot holds a million values and, under KMS v2, a handful of seeds. A `SourceCollector` makes one pass over the
values: it parses envelopes, counts distinct sources and remembers where a few values of each are. It keeps 32 bytes, a
count and places of a source, never the source itself: the caller's `fetch` brings the value at a place back. A million
v1 data keys therefore cost the same whether a wrapped key has 60 bytes or 600. `plan_*` counts calls without a call.

This module knows no socket and no file. Source: docs/formats/kms.md, "How many calls".
"""

from __future__ import annotations

import re
import shlex
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from snaptool.providers.kms import OBJECTS_PER_V1_DEK
from snaptool.providers.kms_envelope import WrappedSource, decode_envelope
from snaptool.providers.provider import Api, KeyDoesNotFit, Reason

Fetch = Callable[[int], tuple[bytes, bytes]]
"""Brings back the value at a place that `SourceCollector.add` was given: etcd key, stored bytes. From any thread."""

CONCURRENCY: Final = {Api.V1: 8, Api.V2: 4}
"""The running cluster shares the account's quota: docs/formats/kms.md, "How many calls"."""
REMEMBERED_PLACES: Final = 3  # of each source: what a report shows, and what a key is tried on


# -- collecting


class Sources:
    """The distinct sources of one provider name, in the order they were met; all of them have the same prefix."""

    def __init__(self, api: Api, provider: str) -> None:
        self.api = api
        self.provider = provider
        self.prefix = api.prefix + provider.encode() + b":"
        self.objects = 0
        self.malformed: Counter[Reason] = Counter()
        self._numbers: dict[bytes, int] = {}
        self._counts = array("Q")
        self._places = array("Q")
        self._more: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, payload: bytes, place: int) -> None:
        """Count a value. One that is not an envelope is counted under its reason; opening it will say so again."""
        try:
            source = decode_envelope(self.api, self.provider, payload).source
        except KeyDoesNotFit as error:
            self.malformed.update(error.reasons)
            return
        self._count(source.cache_key, 1, [place])

    def merge(self, other: Sources) -> None:
        """Add what another collector of the same provider met, later in the file."""
        self.malformed.update(other.malformed)
        for cache_key, number in other._numbers.items():
            self._count(cache_key, other._counts[number], other.places(number))

    def _count(self, cache_key: bytes, objects: int, places: Sequence[int]) -> None:
        self.objects += objects
        number = self._numbers.setdefault(cache_key, len(self._counts))
        if number == len(self._counts):
            self._counts.append(0)
            self._places.append(places[0])
            places = places[1:]
        self._counts[number] += objects
        if places:
            more = self._more.setdefault(number, [])
            more += places[: REMEMBERED_PLACES - 1 - len(more)]

    def cache_keys(self) -> list[bytes]:
        """Return the cache keys by number."""
        return list(self._numbers)

    def count(self, number: int) -> int:
        """Return how many values have the source with this number."""
        return self._counts[number]

    def places(self, number: int) -> list[int]:
        """Return where the first few values with the source of this number are."""
        return [self._places[number], *self._more.get(number, ())]

    def most_used(self) -> list[int]:
        """Return the numbers, most used sources first; equals in the order they were met."""
        return sorted(range(len(self._counts)), key=self._counts.__getitem__, reverse=True)

    def fetch(self, number: int, fetch: Fetch) -> WrappedSource:
        """Return the source with this number, from the first value that has it."""
        _, stored = fetch(self._places[number])
        return decode_envelope(self.api, self.provider, stored[len(self.prefix) :]).source


class SourceCollector:
    """One pass over stored values, for any number of providers. Picklable, and mergeable in the order of the file."""

    def __init__(self, providers: Iterable[tuple[Api, str]]) -> None:
        self._sources = {key: Sources(*key) for key in providers}

    def add(self, stored: bytes, place: int) -> None:
        """Look at one stored value; `place` (0 to 2^64-1) is whatever lets the caller find it again.

        A v1 value counts for every provider whose prefix it has: names may hold colons, so `a` and `a:b` both match a
        value of `a:b`. In all likelihood only one of them parses; if both do, both are asked, as in kube-apiserver.
        """
        for sources in self._sources.values():
            if stored.startswith(sources.prefix):
                sources.add(stored[len(sources.prefix) :], place)

    def merge(self, other: SourceCollector) -> None:
        """Add what a collector with the same providers met later in the file."""
        for key, sources in other._sources.items():
            self._sources[key].merge(sources)

    def sources(self, api: Api, provider: str) -> Sources:
        """Return what was met of one provider."""
        return self._sources[api, provider]


# -- planning


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """What one provider will be asked, by method; and for how many values and distinct sources.

    `asked`: the key service that is asked in the plugin's place; `least_seconds`: what its quota allows, 0 for unknown.
    """

    provider: str
    api: Api
    purpose: str
    objects: int
    sources: int
    calls: Mapping[str, int]
    asked: str = ""
    least_seconds: float = 0.0

    @property
    def total(self) -> int:
        """All calls together."""
        return sum(self.calls.values())


def plan_reading(sources: Sources) -> CallPlan:
    """Count the calls that opening every value needs: one Decrypt for each distinct source."""
    return CallPlan(
        provider=sources.provider,
        api=sources.api,
        purpose="read",
        objects=sources.objects,
        sources=len(sources),
        calls=_calls(sources.api, {"Decrypt": len(sources)}),
    )


def plan_writing(provider: str, api: Api, objects: int, *, dek_per_object: bool = False) -> CallPlan:
    """Count the calls that sealing `objects` values needs. `dek_per_object`: v1 as kube-apiserver does it."""
    if api is Api.V2:
        keys = proofs = min(objects, 1)
    elif dek_per_object:
        keys = proofs = objects
    else:
        keys = proofs = -(-objects // OBJECTS_PER_V1_DEK)
    calls = {"Status": keys if api is Api.V2 else 0, "Encrypt": keys, "Decrypt": proofs}
    return CallPlan(
        provider=provider, api=api, purpose="write", objects=objects, sources=keys, calls=_calls(api, calls)
    )


def plan_rewrapping(sources: Sources) -> CallPlan:
    """Count the calls of a change of KEK alone, reading included: each key is wrapped again, and that proved."""
    number = len(sources)
    calls = {"Status": min(number, 1) if sources.api is Api.V2 else 0, "Encrypt": number, "Decrypt": 2 * number}
    return CallPlan(
        provider=sources.provider,
        api=sources.api,
        purpose="rewrap",
        objects=sources.objects,
        sources=number,
        calls=_calls(sources.api, calls),
    )


def _calls(api: Api, calls: Mapping[str, int]) -> dict[str, int]:
    asked = {method: number for method, number in calls.items() if number}
    return {"Version": 1} | asked if api is Api.V1 and asked else asked


def batch_size(keys: int, concurrency: int, most: int) -> int:
    """Return how many keys go into one call, of a service that takes up to `most`: what is in flight is kept busy."""
    return max(1, min(most, -(-keys // concurrency)))


# -- whose they are


def guess_plugin(source: WrappedSource) -> str:
    """Say which plugin made this, going by its habits; empty when none is recognised. A guess.

    Source: docs/formats/kms.md, "Plugins".
    """
    names = [name for name, _ in source.annotations]
    if "/cryptoKeys/" in source.key_id:
        return "Google Cloud KMS"
    if any(name.endswith(".azure.akv.io") for name in names):
        return "Azure Key Vault"
    if source.source.startswith(b"1") and source.key_id.startswith(("arn:aws", "alias/")):
        return "AWS KMS"
    if source.source.startswith(b"vault:v"):
        return "Vault transit"
    if source.api is Api.V1 and re.fullmatch(
        rb"[A-Za-z0-9_-]{342}|[A-Za-z0-9_-]{512}|[A-Za-z0-9_-]{683}", source.source
    ):
        return "Azure Key Vault"
    return ""


_DIRECT: Final = {
    "AWS KMS": "aws",
    "Google Cloud KMS": "gcp",
    "Azure Key Vault": "azure:https://VAULT.vault.azure.net/keys/NAME",
    "Vault transit": "vault:MOUNT/KEY",
}


def direct_offer(source: WrappedSource) -> str:
    """Say how to do without the plugin that made this; empty where it is not recognised."""
    guessed = guess_plugin(source)
    if guessed not in _DIRECT:
        return ""
    said = shlex.quote(f"{source.provider}={_DIRECT[guessed]}")
    return f"these keys look like {guessed}'s, which can be asked without its plugin: --kms-direct {said}"
