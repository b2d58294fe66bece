"""Values that no API server can decode: named, kept with a warning, deleted by etcd's rules, or mended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptool.operations.opening import open_snapshot
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import GroupResource, Keyring
from snaptool.providers.provider import Api
from snaptool.scratch.server import EtcdBinaries, ScratchEtcd
from tests.support.cli import GOLDEN, Ran, Snaptool
from tests.support.etcd import etcd_binaries, scratch_parent
from tests.support.kms_plugin import kms_plugin
from tests.support.kms_snapshots import NAME, configuration, kms_entry, sealed
from tests.support.kms_values import Form
from tests.support.odd_values import DECODABLE, NAMELESS, SOUND, UNDECODABLE
from tests.support.snapshots import KEY, NEW_SECRET, config, envelope, seal
from tests.support.stored import write_history
from tests.unit.operations.builders import seal_gcm

__all__ = ["etcd_binaries", "scratch_parent"]

BROKEN = {**UNDECODABLE, **NAMELESS}
HEAD = b"/registry/secrets/ns/"
OTHERS = (
    (b"/registry/health", b'{"health":"true"}'),
    (b"/registry/ranges/serviceips", envelope("v1", "RangeAllocation", b"\x12\x0b10.0.0.0/24")),
    (b"/registry/masterleases/10.0.0.1", envelope("v1", "Endpoints", b"")),
    (b"/registry/secrets", b"no key of a list"),
    (b"/registry/frobs/one", b"of a plural that nobody knows"),
    (b"/registry/example.com/widgets/ns/w", b'{"apiVersion":"example.com/v1","kind":"Widget"}\n'),
    (b"/bootstrap/0123456789ab", b"of k3s, and no object"),
    (b"compact_rev_key", b"17"),
)


@pytest.fixture
def old(snaptool: Snaptool) -> Path:
    return snaptool.write("old.yaml", config("aescbc"))


@pytest.fixture
def new(snaptool: Snaptool) -> Path:
    return snaptool.write("new.yaml", config("secretbox", name="new", secret=NEW_SECRET))


def undecodable(ran: Ran) -> dict[str, str]:
    return {value["key"]: value["reason"] for value in ran.json["undecodable"]}


def values(path: Path) -> dict[bytes, list[bytes]]:
    """Every stored value of every key, oldest first; a deletion is empty."""
    found: dict[bytes, list[bytes]] = {}
    with open_snapshot(path) as opened:
        for records in opened.snapshot.chunks():
            for row in range(len(records)):
                found.setdefault(records.user_key(row), []).append(records.value(row))
    return found


@pytest.fixture
def mixed(snaptool: Snaptool) -> Path:
    """Sound and broken Secrets, plain and under aescbc, beside values that are not API objects and need not be."""
    changes: list[tuple[bytes, bytes | None]] = list(OTHERS)
    for number, content in enumerate((*DECODABLE.values(), *BROKEN.values())):
        changes.append((HEAD + b"plain-%d" % number, content))
    broken = UNDECODABLE["half missing"]
    changes += [
        (HEAD + b"sealed", seal(broken, bytes(16))),
        (HEAD + b"was-broken", broken),
        (HEAD + b"was-broken", SOUND),
        (HEAD + b"is-broken", SOUND),
        (HEAD + b"is-broken", broken),
    ]
    return write_history(snaptool.folder / "mixed.db", changes)


def names_of_broken() -> set[str]:
    first = len(DECODABLE)
    return {f"/registry/secrets/ns/plain-{number}" for number in range(first, first + len(BROKEN))}


@pytest.mark.parametrize("with_keys", [True, False])
def test_verify_names_all_that_is_broken_and_nothing_else(
    snaptool: Snaptool, mixed: Path, old: Path, *, with_keys: bool
) -> None:
    ran = snaptool("verify", mixed, *(("--config", old) if with_keys else ()), "-o", "json")
    assert ran.code == 3
    found = undecodable(ran)
    names = ("was-broken", "is-broken", *(("sealed",) if with_keys else ()))
    assert set(found) == names_of_broken() | {f"/registry/secrets/ns/{name}" for name in names}
    empty = f"/registry/secrets/ns/plain-{len(DECODABLE) + list(BROKEN).index('empty')}"
    assert found[empty] == "empty"
    graded = {(one["code"], one["severity"]) for one in ran.json["findings"]}
    assert {("bad_envelope", "error"), ("bad_envelope", "warning"), ("bad_object", "error")} <= graded


def test_inspect_counts_what_is_broken_and_never_as_opening(snaptool: Snaptool, mixed: Path, old: Path) -> None:
    ran = snaptool("inspect", mixed, "--config", old, "-o", "json")
    assert ran.code == 3
    rows = {row["provider"]: row for row in ran.json["census"] if row["resource"] == "secrets"}
    assert rows["identity"]["undecodable"] == len(ran.json["undecodable"]) - 1 > 20
    assert (rows["aescbc"]["opens"], rows["aescbc"]["lost"], rows["aescbc"]["undecodable"]) == (0, 0, 1)
    assert (
        rows["identity"]["opens"] + rows["identity"]["undecodable"]
        == rows["identity"]["live"] + rows["identity"]["old"]
    )
    others = [row for row in ran.json["census"] if row["resource"] != "secrets"]
    assert {row["undecodable"] for row in others} == {0}
    text = snaptool("inspect", mixed, "--config", old).stdout
    assert "UNDECODABLE" in text
    assert len(text.splitlines()) < 80


def test_undecodable_values_are_kept_with_a_warning_unless_told_otherwise(
    snaptool: Snaptool, mixed: Path, old: Path, new: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new.db"
    ran = snaptool("rewrite", mixed, target, "--config", old, "--new-config", new, "--keep-embedded", makes=[target])
    assert ran.code == 0
    assert "lists of secrets fail on them" in ran.stdout
    before, after = values(mixed), values(target)
    assert set(before) == set(after)
    assert {key: after[key] for key, _ in OTHERS[:-1] if not key.startswith(b"/registry/secrets")} == {
        key: [value] for key, value in OTHERS[:-1] if not key.startswith(b"/registry/secrets")
    }
    again = snaptool("inspect", target, "--config", new, "-o", "json")
    assert [row["lost"] for row in again.json["census"]] == [0] * len(again.json["census"])


def test_stop_lists_them_and_writes_nothing(snaptool: Snaptool, mixed: Path, old: Path, new: Path) -> None:
    words = (
        "rewrite",
        mixed,
        "new.db",
        "--config",
        old,
        "--new-config",
        new,
        "--keep-embedded",
        "--undecodable",
        "stop",
    )
    ran = snaptool(*words)
    assert ran.code == 3
    assert "so nothing was written" in ran.stdout
    assert "-o json and --report list all of them" in ran.stdout
    assert len(snaptool(*words, "-o", "json").json["undecodable"]) == len(BROKEN) + 3


def test_delete_drops_exactly_the_broken_ones_by_the_rules_of_lost_values(
    snaptool: Snaptool, mixed: Path, old: Path, new: Path, tmp_path: Path, etcd_binaries: EtcdBinaries
) -> None:
    target = tmp_path / "new.db"
    words = ("--config", old, "--new-config", new, "--keep-embedded", "--undecodable", "delete", "-o", "json")
    ran = snaptool("rewrite", mixed, target, *words, makes=[target])
    assert ran.code == 0
    whole = {one["key"] for one in ran.json["deletions"] if one["whole"]}
    assert whole == names_of_broken() | {f"/registry/secrets/ns/{name}" for name in ("is-broken", "sealed")}
    assert [one["key"] for one in ran.json["deletions"] if not one["whole"]] == ["/registry/secrets/ns/was-broken"]
    after = values(target)
    assert len(after[HEAD + b"was-broken"]) == 1
    verified = snaptool("verify", target, "--config", new, "-o", "json")
    assert (verified.code, verified.json["undecodable"]) == (0, [])
    with open_snapshot(mixed) as one, open_snapshot(target) as other:
        assert one.snapshot.current_revision == other.snapshot.current_revision
    with ScratchEtcd.restore(target, binaries=etcd_binaries, skip_hash_check=False) as server:
        served = {key.key for page in server.client().pages(revision=0) for key in page}
    assert served == {key for key in values(mixed) if key.decode() not in whole}


def test_the_etcd_engine_follows_the_same_choice(
    snaptool: Snaptool, old: Path, new: Path, tmp_path: Path, etcd_binaries: EtcdBinaries
) -> None:
    changes = [(HEAD + b"sound", SOUND), (HEAD + b"broken", UNDECODABLE["half missing"])]
    source, target = write_history(tmp_path / "source.db", changes), tmp_path / "new.db"
    words = ("--config", old, "--new-config", new, "--engine", "etcd", "--etcd-bin", etcd_binaries.etcd.parent)
    ran = snaptool("rewrite", source, target, *words, "--undecodable", "delete", "-o", "json", makes=[target])
    assert ran.code == 0, ran.text
    assert [one["key"] for one in ran.json["deletions"]] == ["/registry/secrets/ns/broken"]
    assert snaptool("list", target, "secrets", "-o", "name").stdout == "secret/sound\n"


# --- ciphertext without its header ----------------------------------------------------------------------------------


def test_headless_ciphertext_from_the_field_is_mended(snaptool: Snaptool, tmp_path: Path) -> None:
    source = snaptool.sample("cases/headless/headless.db", "headless.db")
    old1, new1 = (GOLDEN / "cases" / "headless" / name for name in ("old1.yaml", "new1.yaml"))
    target = tmp_path / "new.db"
    ran = snaptool("inspect", source, "--config", old1, "-o", "json")
    (value,) = ran.json["undecodable"]
    assert (value["reason"], value["provider"], value["key_name"]) == ("headless", "aescbc", "key1")
    (row,) = [row for row in ran.json["census"] if row["resource"] == "secrets" and row["provider"] == "identity"]
    assert (row["opens"], row["undecodable"]) == (0, 1)
    text = snaptool("rewrite", source, target, "--config", old1, "--new-config", new1, makes=[target])
    assert text.code == 0
    assert "opens under aescbc key1 without it" in text.stdout
    assert "the object itself is written, mended" in text.stdout
    got = snaptool("get", target, "secret", "cloud-config", "-n", "kube-system", "--config", new1, shows_secrets=True)
    assert got.code == 0
    assert "kind: Secret" in got.stdout
    assert snaptool("verify", target, "--config", new1, "-q").text == ""


def ciphertexts() -> Iterator[object]:
    key = HEAD + b"cut"
    sealed = {"aescbc": seal(SOUND, bytes(16)), "aesgcm": seal_gcm("key1", KEY, SOUND, key)}
    for provider, stored in sealed.items():
        header = f"k8s:enc:{provider}:v1:key1:".encode()
        yield pytest.param(provider, stored[len(header) :], id=f"{provider}, no header")
        yield pytest.param(provider, stored[len(header) - len(b"key1:") :], id=f"{provider}, no provider")


@pytest.mark.parametrize(("provider", "stored"), [*ciphertexts()])
@pytest.mark.parametrize("way", ["other provider", "same key", "plaintext"])
def test_each_cipher_without_its_header_is_mended(
    snaptool: Snaptool, tmp_path: Path, provider: str, stored: bytes, way: str, new: Path
) -> None:
    reading = snaptool.write("reading.yaml", config(provider))
    source = write_history(tmp_path / "source.db", [(HEAD + b"cut", stored), (HEAD + b"sound", SOUND)])
    target = tmp_path / "new.db"
    words = {
        "other provider": ("--new-config", new),
        "same key": ("--new-config", reading),
        "plaintext": ("--decrypt",),
    }[way]
    ran = snaptool("rewrite", source, target, "--config", reading, *words, "-o", "json", makes=[target])
    assert ran.code == 0, ran.text
    assert ran.json["verified"] is True
    with_keys = ("--config", words[1]) if len(words) > 1 else ()
    ran = snaptool("get", target, "secret", "cut", "-n", "ns", *with_keys, "-o", "json", shows_secrets=True)
    assert ran.json["metadata"]["name"] == "s1"
    assert snaptool("verify", target, *with_keys, "-o", "json").json["undecodable"] == []


def test_ciphertext_of_another_resource_is_no_object_of_this_one(snaptool: Snaptool, tmp_path: Path, old: Path) -> None:
    config_map = seal(envelope("v1", "ConfigMap", b""), bytes(16))[len(b"k8s:enc:aescbc:v1:key1:") :]
    source = write_history(tmp_path / "source.db", [(HEAD + b"cut", config_map), (HEAD + b"sound", SOUND)])
    ran = snaptool("inspect", source, "--config", old, "-o", "json")
    assert undecodable(ran) == {"/registry/secrets/ns/cut": "no_object"}


# --- reading back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b'{"a":1}', b"", b"raw \x00\xff bytes", b"x" * 37, bytes(16)])
def test_what_equals_the_source_is_right_whatever_it_looks_like(
    snaptool: Snaptool, tmp_path: Path, old: Path, content: bytes
) -> None:
    reading = snaptool.write("reading.yaml", config("aesgcm"))
    key = HEAD + b"odd"
    source = write_history(tmp_path / "source.db", [(key, seal_gcm("key1", KEY, content, key)), (HEAD + b"b", SOUND)])
    target = tmp_path / "new.db"
    ran = snaptool("rewrite", source, target, "--config", reading, "--new-config", old, makes=[target])
    assert ran.code == 0, ran.text
    back = tmp_path / "back.db"
    words = ("--config", old, "--new-config", reading, "--undecryptable", "keep")
    assert snaptool("rewrite", target, back, *words, makes=[back]).code == 0


@pytest.mark.parametrize("words", [(), ("--new-config",)])
def test_what_may_be_ciphertext_is_not_deleted_while_no_key_was_given(
    snaptool: Snaptool, old: Path, new: Path, words: tuple[str, ...]
) -> None:
    headless = seal(SOUND, bytes(16)).removeprefix(b"k8s:enc:aescbc:v1:key1:")
    source = write_history(snaptool.folder / "headless.db", [(HEAD + b"one", SOUND), (HEAD + b"two", headless)])
    target = snaptool.folder / "target.db"
    how: tuple[str | Path, ...] = (*words, new) if words else ()
    refused = snaptool("rewrite", source, target, *how, "--undecodable", "delete", "-o", "json")
    assert refused.code == 3
    assert refused.json["error"]["code"] == "may_be_ciphertext"
    assert "1 value would be deleted" in refused.stderr
    assert "--config" in snaptool("verify", source).stdout
    # The advice, followed, saves the object.
    ran = snaptool("rewrite", source, target, *how, "--undecodable", "delete", "--config", old, makes=[target])
    assert ran.code == 0
    assert "mended" in ran.stdout
    assert set(values(target)) == {HEAD + b"one", HEAD + b"two"}


def test_text_that_is_no_object_is_deleted_without_any_key(snaptool: Snaptool) -> None:
    text = b"some text that nobody took for a Secret, longer than any tag"
    source = write_history(snaptool.folder / "text.db", [(HEAD + b"one", SOUND), (HEAD + b"two", text)])
    target = snaptool.folder / "target.db"
    assert snaptool("rewrite", source, target, "--undecodable", "delete", makes=[target]).code == 0
    assert values(target)[HEAD + b"two"] != [text]


# --- list and get ---------------------------------------------------------------------------------------------------


def test_list_lost_names_undecodable_values_as_such(snaptool: Snaptool, mixed: Path, old: Path) -> None:
    ran = snaptool("list", mixed, "--lost", "--config", old, "--jobs", "1", "-o", "json")
    assert ran.code == 3
    found = {item["key"]: (item["opens"], item["undecodable"]) for item in ran.json["items"]}
    names = ("is-broken", "sealed")
    assert set(found) == names_of_broken() | {f"/registry/secrets/ns/{name}" for name in names}
    assert all(opens is False and reason for opens, reason in found.values())
    text = snaptool("list", mixed, "--lost", "--config", old, "--jobs", "1").stdout
    assert "UNDECODABLE" in text
    assert "LOST" not in text


@pytest.mark.parametrize(
    ("key", "code", "shown"),
    [
        ("compact_rev_key", 0, {"text": "17"}),
        ("/bootstrap/0123456789ab", 0, {"text": "of k3s, and no object"}),
        ("/registry/secrets/ns/sealed", 3, {"base64": None}),
    ],
)
def test_get_shows_what_is_no_object_as_it_is(
    snaptool: Snaptool, mixed: Path, old: Path, key: str, code: int, shown: dict[str, str | None]
) -> None:
    ran = snaptool("get", mixed, key, "--config", old, "-o", "json", shows_secrets=True)
    assert ran.code == code
    assert ran.json["key"] == key
    for name, value in shown.items():
        assert ran.json[name] == value if value else ran.json[name]


def test_get_opens_ciphertext_without_its_header(snaptool: Snaptool) -> None:
    source = snaptool.sample("cases/headless/headless.db", "headless.db")
    words = ("secret", "cloud-config", "-n", "kube-system", "--config", GOLDEN / "cases" / "headless" / "old1.yaml")
    ran = snaptool("get", source, *words, "-o", "json", shows_secrets=True)
    assert ran.code == 3
    assert ran.json["metadata"]["name"] == "cloud-config"
    assert "lost its header; it opens under aescbc key1" in ran.stderr


# --- ciphertext without its header, of every provider ---------------------------------------------------------------


def plaintext_of(path: Path, key: bytes, known: Path) -> bytes:
    """What the current value of a Secret opens to."""
    keyring = Keyring((parse_config(known.read_bytes()),))
    return keyring.chain_for(GroupResource("secrets", "")).open(values(path)[key][-1], key)[1]


@pytest.mark.parametrize("provider", ["aescbc", "aesgcm", "secretbox"])
@pytest.mark.parametrize("cut", ["header", "header without the name"])
def test_headless_ciphertext_of_local_keys_is_mended(snaptool: Snaptool, new: Path, provider: str, cut: str) -> None:
    text = config(provider, name="k")
    key = HEAD + b"cut"
    whole = Keyring((parse_config(text.encode()),)).chain_for(GroupResource("secrets", "")).seal(SOUND, key)
    start = f"k8s:enc:{provider}:v1:".encode()
    stored = whole.removeprefix(start + b"k:") if cut == "header" else whole.removeprefix(start)
    source = write_history(snaptool.folder / "h.db", [(HEAD + b"one", SOUND), (key, stored)])
    known, target = snaptool.write("k.yaml", text), snaptool.folder / "t.db"
    seen = snaptool("inspect", source, "--config", known, "-o", "json").json
    assert [(one["reason"], one["provider"], one["headless"]) for one in seen["undecodable"]] == [
        ("headless", provider, True)
    ]
    assert seen["lost"] == []
    assert snaptool("rewrite", source, target, "-c", known, "--new-config", new, makes=[target]).code == 0
    assert plaintext_of(target, key, new) == SOUND
    # Another key of the same provider opens nothing, and nothing is guessed.
    other = snaptool.write("other.yaml", config(provider, name="k", secret=NEW_SECRET))
    (again,) = snaptool("inspect", source, "--config", other, "-o", "json").json["undecodable"]
    assert not again["headless"]
    assert again["reason"] in {"no_object", "bad_json"}, "ciphertext may begin with a brace"


@pytest.mark.parametrize("api", [Api.V1, Api.V2])
def test_headless_ciphertext_of_a_key_service_is_mended(snaptool: Snaptool, new: Path, api: Api) -> None:
    form = {Api.V1: Form.V1_GCM, Api.V2: Form.V2_SEED}[api]
    with kms_plugin() as plugin:
        (one, first, _), (two, second, _) = sealed(form, 2, 0, kek="kek-1")
        start = f"k8s:enc:kms:{api.value}:{NAME[api]}:".encode()
        assert second.startswith(start)
        source = write_history(snaptool.folder / "kms.db", [(one, first), (two, second.removeprefix(start))])
        known = snaptool.write("kms.yaml", configuration(kms_entry(api, NAME[api], plugin.endpoint)))
        seen = snaptool("inspect", source, "--config", known, "-o", "json").json
        assert [(value["key"], value["reason"]) for value in seen["undecodable"]] == [(two.decode(), "headless")]
        target = snaptool.folder / "t.db"
        assert snaptool("rewrite", source, target, "-c", known, "--new-config", new, makes=[target]).code == 0
        assert plaintext_of(target, one, new).startswith(b"k8s\0")
        assert plaintext_of(target, two, new).startswith(b"k8s\0")


# --- custom resources in a version that is not defined --------------------------------------------------------------

CARS, OLD_CAR = GOLDEN / "cases" / "field2" / "08-cr-old-version" / "versions.db", "/registry/example.com/cars/yard/old"


def test_a_custom_resource_in_a_version_that_is_not_defined_is_undecodable(snaptool: Snaptool, old: Path) -> None:
    expected = {OLD_CAR: "undefined_version"}
    assert undecodable(snaptool("inspect", CARS, "-o", "json")) == expected
    verified = snaptool("verify", CARS, "-o", "json")
    assert (verified.code, undecodable(verified)) == (3, expected)
    (error,) = (found for found in verified.json["findings"] if found["severity"] == "error")
    assert (error["code"], error["count"], "served: false" in error["remedy"]) == ("undefined_version", 1, True)
    listed = snaptool("list", CARS, "--lost", "--config", old, "-o", "json")
    assert [(row["key"], row["undecodable"]) for row in listed.json["items"]] == [(OLD_CAR, "undefined_version")]
    assert "1 value is undecodable" in snaptool("get", CARS, "cars.example.com", "-n", "yard").stderr
    assert snaptool("get", CARS, OLD_CAR).code == 3
    told = snaptool("history", CARS, OLD_CAR, "-o", "json")
    assert (told.code, told.json["revisions"][0]["undecodable"]) == (3, "undefined_version")
    # Trains and boats are stored in versions that are defined and not served: those are converted.
    target = snaptool.folder / "t.db"
    stopped = snaptool("rewrite", CARS, target, "--decrypt", "--undecodable", "stop")
    assert stopped.code == 3
    assert snaptool("rewrite", CARS, target, "--undecodable", "delete", makes=[target]).code == 0
    assert set(values(CARS)) - set(values(target)) == {OLD_CAR.encode()}
    assert snaptool("verify", target).code == 0


@pytest.mark.parametrize("prefix", [b"/registry", b"/k8s/prod"])
@pytest.mark.parametrize("sealed_too", [False, True])
def test_definitions_are_found_under_every_prefix_and_under_encryption(
    snaptool: Snaptool, old: Path, prefix: bytes, sealed_too: object
) -> None:
    def definition(*versions: str) -> bytes:
        spec = {
            "group": "example.com",
            "names": {"plural": "ships", "kind": "Ship"},
            "scope": "Namespaced",
            "versions": [{"name": name, "served": True, "storage": name == versions[0]} for name in versions],
        }
        head = {"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1"}
        return json.dumps({**head, "metadata": {"name": "ships.example.com"}, "spec": spec}).encode()

    def ship(version: str) -> bytes:
        return json.dumps({"apiVersion": f"example.com/{version}", "kind": "Ship", "metadata": {}}).encode() + b"\n"

    def put(key: bytes, value: bytes) -> tuple[bytes, bytes]:
        key = prefix + key
        return key, seal(value, bytes(16)) if sealed_too else value

    crd = b"/apiextensions.k8s.io/customresourcedefinitions/ships.example.com"
    namespace = envelope("v1", "Namespace", b"\n\x03\n\x01a")
    records = [
        (prefix + b"/namespaces/a", namespace),
        put(crd, definition("v1", "v2")),
        put(b"/example.com/ships/a/one", ship("v1")),
        put(b"/example.com/ships/a/two", ship("v2")),
        put(crd, definition("v2")),
    ]
    source = write_history(snaptool.folder / "ships.db", records)
    everything = snaptool.write("all.yaml", config("aescbc", resources="'*.*'") if sealed_too else old.read_text())
    found = snaptool("verify", source, "--config", everything, "--etcd-prefix", prefix.decode(), "-o", "json")
    assert undecodable(found) == {(prefix + b"/example.com/ships/a/one").decode(): "undefined_version"}


def test_undecodable_values_are_marked_in_history_and_diff(snaptool: Snaptool, old: Path) -> None:
    key = HEAD + b"one"
    source = write_history(
        snaptool.folder / "a.db", [(key, SOUND), (key, seal(envelope("v1", "ConfigMap", b""), bytes(16)))]
    )
    other = write_history(snaptool.folder / "b.db", [(key, SOUND)])
    told = snaptool("history", source, key.decode(), "--config", old)
    assert (told.code, "current, UNDECODABLE" in told.stdout) == (3, True)
    compared = snaptool("diff", source, other, "--config", old, "-o", "json").json["changed"]
    assert [(one["a"]["undecodable"], one["b"]["undecodable"]) for one in compared] == [("wrong_type", None)]
    assert "aescbc key1, UNDECODABLE" in snaptool("diff", source, other, "--config", old).stdout
