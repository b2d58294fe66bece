"""Kubernetes' own storage over an etcd that was restored from what snaptool wrote: it serves what it served before."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snaptool.etcd import Snapshot
from snaptool.kube.objects import plausible
from snaptool.operations.opening import open_snapshot
from snaptool.operations.plan import RewriteRequest, Undecryptable
from snaptool.operations.rewrite import RewriteReport, rewrite
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import Keyring
from snaptool.scratch.server import EtcdBinaries, ScratchEtcd
from tests.oracles.store import Store
from tests.support.peers import APISERVER_VERSIONS, Judged, peer

SAMPLES = Path(__file__).parents[2] / "samples"
RESOURCES = ("secrets", "configmaps")
KEY = base64.b64encode(bytes(range(32))).decode()
TARGETS = {
    "aescbc": f"aescbc: {{keys: [{{name: new, secret: {KEY}}}]}}",
    "aesgcm": f"aesgcm: {{keys: [{{name: new, secret: {KEY}}}]}}",
    "secretbox": f"secretbox: {{keys: [{{name: new, secret: {KEY}}}]}}",
    "identity": "identity: {}",
}


def configuration(provider: str) -> str:
    return (
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n"
        f"resources: [{{resources: [secrets, configmaps], providers: [{{{provider}}}]}}]\n"
    )


def read_config(name: str) -> str:
    return (SAMPLES / f"{name}.yaml").read_text()


def rewritten(
    sample: str, old: str, new: str, target: Path, *, undecryptable: Undecryptable = Undecryptable.STOP
) -> RewriteReport:
    """Rewrite a sample from one configuration to another; an empty new one means to decrypt."""
    reading, writing = (
        Keyring([parse_config(text.encode())] if text else [], plausible=plausible) for text in (old, new)
    )
    request = RewriteRequest(
        reading=reading, writing=writing, decrypt=not new, undecryptable=undecryptable, allow_plaintext=True
    )
    with open_snapshot(SAMPLES / f"{sample}.db") as opened:
        return rewrite(opened, target, request)


@pytest.fixture(scope="session", params=APISERVER_VERSIONS, ids=lambda version: f"kubernetes-1{version[1:]}")
def running_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    log = tmp_path_factory.mktemp("oracle") / "log"
    with Store(peer("apiserver", request.param) / "storage", log) as store:
        yield store


@pytest.fixture
def store(running_store: Store, judged: Judged) -> Iterator[Store]:
    """Kubernetes' own storage, one release after the other."""
    running_store.objects = 0
    yield running_store
    judged(f"Kubernetes {running_store.release}", "stored objects", running_store.objects)


Boot = Callable[[Path], ScratchEtcd]


@pytest.fixture
def boot(etcd_binaries: EtcdBinaries, scratch_parent: Path) -> Boot:
    """Starts a real etcd on a copy of a snapshot."""

    def start(snapshot: Path) -> ScratchEtcd:
        return ScratchEtcd.restore(snapshot, binaries=etcd_binaries, parent=scratch_parent, tcp=True)

    return start


@contextmanager
def booted_pair(boot: Boot, before: Path, after: Path) -> Iterator[tuple[ScratchEtcd, ScratchEtcd]]:
    with boot(before) as first, boot(after) as second:
        yield first, second


def records(sample: str) -> tuple[Snapshot, Iterator[tuple[int, bool, str]]]:
    """A sample, and its records: main revision, whether it is a tombstone, key."""
    snapshot = Snapshot((SAMPLES / f"{sample}.db").read_bytes())

    def read() -> Iterator[tuple[int, bool, str]]:
        for records in snapshot.chunks():
            for row in range(len(records)):
                yield records.main[row], not records.is_put(row), records.user_key(row).decode()

    return snapshot, read()


def history(sample: str) -> tuple[int, int, dict[str, list[int]]]:
    """Compacted and current revision of a sample, and the revisions after the former that touch each resource."""
    snapshot, found = records(sample)
    compacted = max(snapshot.compacted_revision, 1)
    touched: dict[str, list[int]] = {resource: [] for resource in RESOURCES}
    for main, _, key in found:
        for resource in RESOURCES:
            if main > compacted and key.startswith(f"/registry/{resource}/"):
                touched[resource].append(main)
    return compacted, snapshot.current_revision, touched


@pytest.mark.parametrize("provider", TARGETS)
@pytest.mark.parametrize(("sample", "config"), [("aescbc-cluster", "aescbc"), ("mixed-providers", "mixed")])
def test_lists_gets_and_watches_are_the_same_with_the_new_configuration_alone(
    store: Store, boot: Boot, tmp_path: Path, sample: str, config: str, provider: str
) -> None:
    old, new = read_config(config), configuration(TARGETS[provider])
    target = tmp_path / "new.db"
    rewritten(sample, old, new, target)
    compacted, current, touched = history(sample)
    with booted_pair(boot, SAMPLES / f"{sample}.db", target) as (before, after):
        for resource in RESOURCES:
            expected, found = store.list(before, old, resource), store.list(after, new, resource)
            assert expected.error == found.error == ""
            assert expected.objects != []
            assert found == expected
            assert found.revision == str(current)
            name = found.names()[0]
            assert store.get(after, new, resource, name).objects == found.objects[:1]
            # Every revision that is left of history, not only the newest: values in it were rewritten too.
            for revision in {*touched[resource], current}:
                then = store.list(before, old, resource, revision=revision)
                assert then.error == ""
                assert store.list(after, new, resource, revision=revision) == then
            if touched[resource]:
                count = len(touched[resource])
                events = store.watch(before, old, resource, revision=compacted, events=count)
                assert events.error == ""
                assert [int(item["metadata"]["resourceVersion"]) for _, item in events.objects] == touched[resource]
                assert store.watch(after, new, resource, revision=compacted, events=count) == events


def test_without_any_configuration_after_decrypt(store: Store, boot: Boot, tmp_path: Path) -> None:
    old, target = read_config("mixed"), tmp_path / "plain.db"
    rewritten("mixed-providers", old, "", target)
    with booted_pair(boot, SAMPLES / "mixed-providers.db", target) as (before, after):
        for resource in RESOURCES:
            expected = store.list(before, old, resource)
            assert expected.objects != []
            assert store.list(after, "", resource) == expected


def test_a_lost_key_blocks_every_list_until_what_is_lost_is_deleted(store: Store, boot: Boot, tmp_path: Path) -> None:
    config, complete, target = read_config("lost-key"), read_config("found-key"), tmp_path / "recovered.db"
    report = rewritten("lost-key", config, config, target, undecryptable=Undecryptable.DELETE)
    gone = {deletion.key.decode() for deletion in report.deletions if deletion.whole}
    lost = [one for one in report.lost if one.live]
    assert {one.key.decode() for one in lost} == gone
    with booted_pair(boot, SAMPLES / "lost-key.db", target) as (before, after):
        blocked = store.list(before, config, "secrets")
        assert blocked.objects == []
        # The words that the report gives for the server's log are in what the server says, for a key that is lost.
        (told,) = {one.outcome.server_error for one in lost}
        assert told in blocked.error
        assert any(key in blocked.error for key in gone)

        readable = {
            name: item
            for name in (key.removeprefix("/registry/secrets/") for key in secrets_of("lost-key"))
            for _, item in store.get(before, config, "secrets", name).objects
        }
        listed = store.list(after, config, "secrets")
        assert listed.error == ""
        assert dict(zip(listed.names(), (item for _, item in listed.objects), strict=True)) == readable
        assert len(readable) == len(secrets_of("lost-key")) - len(gone)
        # The lost ones were really lost to this configuration, and not to the server.
        assert all(
            store.get(before, complete, "secrets", key.removeprefix("/registry/secrets/")).error == "" for key in gone
        )


def secrets_of(sample: str) -> list[str]:
    """Keys of the Secrets that are alive in a sample."""
    alive = {key: not tombstone for _, tombstone, key in records(sample)[1]}
    return sorted(key for key, is_alive in alive.items() if is_alive and key.startswith("/registry/secrets/"))
