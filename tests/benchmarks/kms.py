"""KMS: how many values a second through one seed, and how many calls a second for v1 keys, by calls in flight.

Numbers are of one process and a Python plugin in another; `python -m tests.benchmarks.kms` prints them as a table.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from snaptool.providers.kms import KmsV2Provider, UnwrappedKeys
from snaptool.providers.kms_grpc import GrpcKms, parse_endpoint
from snaptool.providers.kms_keys import make_write_key
from snaptool.providers.kms_unwrapping import unwrap_sources
from snaptool.providers.provider import Api
from tests.support.kms_plugin import kms_plugin
from tests.support.kms_values import Store, local_keks

VALUES = 20_000
PLAINTEXT = b"k8s\0" + bytes(996)
V1_KEYS = 800
CLOUD_SECONDS = 0.01  # a nearby cloud's answer: docs/formats/kms.md, "How many calls"


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    per_second: float
    calls: int
    objects: int


def rows() -> Iterator[Row]:
    with kms_plugin() as plugin:
        service = GrpcKms("kp", Api.V2, parse_endpoint(plugin.endpoint))
        write = make_write_key(service)
        writer = KmsV2Provider("kp", UnwrappedKeys(), write)
        keys = [b"/registry/secrets/default/s%d" % number for number in range(VALUES)]
        started = time.perf_counter()
        sealed = [writer.seal(PLAINTEXT, key, os.urandom) for key in keys]
        yield Row("v2 seal", VALUES / (time.perf_counter() - started), len(plugin.calls()), VALUES)
        plugin.forget()
        store = Store()
        store.values = [(key, writer.prefix + payload) for key, payload in zip(keys, sealed, strict=True)]
        started = time.perf_counter()
        (answer,) = unwrap_sources(store.collect(Api.V2), [service], store.fetch)
        reader = KmsV2Provider("kp", answer.keys)
        for key, payload in zip(keys, sealed, strict=True):
            reader.unseal(payload, key)
        yield Row("v2 collect, unwrap, open", VALUES / (time.perf_counter() - started), len(plugin.calls()), VALUES)
        service.close()
        store = Store()
        store.seal_by(local_keks(Api.V1), *[1] * V1_KEYS)
        for seconds in (0.0, CLOUD_SECONDS):
            plugin.fail({"kind": "slow", "method": "Decrypt", "seconds": seconds})
            for in_flight in (1, 8, 16):
                plugin.forget()
                service = GrpcKms("kp", Api.V1, parse_endpoint(plugin.endpoint))
                (answer,) = unwrap_sources(store.collect(Api.V1), [service], store.fetch, concurrency=in_flight)
                service.close()
                what = f"v1 unwrap, {in_flight} in flight, answer in {seconds * 1000:g} ms"
                yield Row(what, answer.rate, len(plugin.calls()), V1_KEYS)


def main() -> None:
    for row in rows():
        per_object = row.calls / row.objects
        sys.stdout.write(f"{row.what:45} {row.per_second:10.0f}/s {row.calls:6} calls {per_object:8.5f} per object\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
