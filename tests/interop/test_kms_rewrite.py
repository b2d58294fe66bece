"""Snapshots with KMS values through the command line, with a plugin in another process and a real etcd.

docs/formats/kms.md, "How many calls", end to end: calls are counted from the plugin's journal, plaintexts are compared
with those that were sealed by bare primitives, and each new file has to open with its new configuration alone, in a
real etcd too.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snaptool.operations.boot import boot_check
from snaptool.operations.opening import open_snapshot
from snaptool.providers.kms_envelope import Envelope, decode_v1, decode_v2, encode_envelope, hash_key_id
from snaptool.providers.provider import Api
from snaptool.scratch.server import EtcdBinaries, ScratchEtcd
from tests.support.cli import Ran, Snaptool
from tests.support.etcd import etcd_binaries, saved, scratch_parent
from tests.support.kms_plugin import RunningPlugin, kms_plugin
from tests.support.kms_snapshots import (
    API,
    KEKS,
    NAME,
    Plaintexts,
    Value,
    configuration,
    database,
    in_plaintext,
    kms_entry,
    opened_by,
    sealed,
    stored_values,
    value_of,
)
from tests.support.kms_values import Form, local_keks, stored_value
from tests.support.local_keks import SavedKeks
from tests.support.snapshots import config, envelope

__all__ = ["etcd_binaries", "scratch_parent"]


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningPlugin]:
    with kms_plugin() as plugin:
        yield plugin


@pytest.fixture
def plugin(shared: RunningPlugin) -> RunningPlugin:
    shared.control(faults=[], apis=["v1", "v2"], rotate="kek-1")
    shared.forget()
    return shared


@pytest.fixture(scope="module")
def other() -> Iterator[RunningPlugin]:
    """Another KMS: it has kek-2 alone."""
    with kms_plugin() as plugin:
        plugin.control(rotate="kek-2")
        plugin.control(remove="kek-1")
        yield plugin


@pytest.fixture
def snaptool(tmp_path: Path) -> Snaptool:
    return Snaptool(tmp_path)


@pytest.fixture
def both(snaptool: Snaptool, plugin: RunningPlugin) -> Path:
    """A configuration with both KMS providers."""
    entries = [kms_entry(api, NAME[api], plugin.endpoint) for api in (Api.V2, Api.V1)]
    return snaptool.write("kms.yaml", configuration(*entries))


@pytest.fixture
def secretbox(snaptool: Snaptool) -> Path:
    return snaptool.write("secretbox.yaml", config("secretbox"))


# --- all ways, with a real etcd -------------------------------------------------------------------------------------


@pytest.fixture
def cluster(snaptool: Snaptool, etcd_binaries: EtcdBinaries, scratch_parent: Path) -> tuple[Path, Plaintexts]:
    """A snapshot by a real etcd: four forms, two keys each, older revisions, a deleted key, plaintext beside them."""
    expected: Plaintexts = {}
    with ScratchEtcd.fresh(binaries=etcd_binaries, parent=scratch_parent) as server:
        client = server.client()
        for position, form in enumerate([*Form, *Form]):
            api, key = API[form], os.urandom(32)
            wrapped = local_keks(api, NAME[api]).wrap(key)
            for number in range(10 * (position % 4), 10 * (position % 4) + 10):
                etcd_key, stored, plaintext = value_of(form, wrapped, key, number, position)
                expected[etcd_key, client.put(etcd_key, stored)] = plaintext
        client.put(b"/registry/configmaps/default/c", envelope("v1", "ConfigMap", b"\n\x03\n\x01c"))
        client.delete(b"/registry/secrets/default/s00003")
        content = saved(server)
    return snaptool.write("source.db", content), expected


def test_every_way_keeps_every_plaintext_and_a_real_etcd_boots_each(
    snaptool: Snaptool,
    cluster: tuple[Path, Plaintexts],
    both: Path,
    plugin: RunningPlugin,
    other: RunningPlugin,
    etcd_binaries: EtcdBinaries,
    scratch_parent: Path,
) -> None:
    source, expected = cluster
    old = both
    ways = {
        "secretbox": config("secretbox"),
        "a": configuration(kms_entry(Api.V2, "kp", plugin.endpoint)),
        "b": configuration(kms_entry(Api.V2, "kp", other.endpoint)),
        "clear": configuration(),
        "v1": configuration(kms_entry(Api.V1, "a:b", other.endpoint)),
        "again": configuration(kms_entry(Api.V2, "kq", plugin.endpoint)),
        "aescbc": config("aescbc"),
    }
    for name, text in ways.items():
        new, target = snaptool.write(f"{name}.yaml", text), snaptool.folder / f"{name}.db"
        plugin.forget()
        other.forget()
        ran = snaptool(
            *("rewrite", source, target, "--config", old, "--new-config", new, "-o", "json", "--jobs", "2"),
            *(["--allow-plaintext"] if name == "clear" else []),
            makes=[target],
        )
        assert ran.code == 0, (name, ran.text)
        assert ran.json["verified"] is True
        assert ran.json["records"]["rewritten"] == len(expected) == 80
        keks = SavedKeks({"kek-2": b"\x22" * 32}, "kek-2") if name in ("b", "v1") else KEKS
        values = opened_by(target, text, keks)
        assert {at: values[at] for at in expected} == expected, name
        assert len(values) == 81
        checked = snaptool("verify", target, "--config", new)
        assert checked.code == 0, (name, checked.text)
        with open_snapshot(target) as opened:
            report = boot_check(opened.snapshot, target, binaries=etcd_binaries, parent=scratch_parent)
        assert report.differences == ()
        source, old = target, new


def test_kms_goes_to_clear_by_the_decrypt_flag(
    snaptool: Snaptool, cluster: tuple[Path, Plaintexts], both: Path, plugin: RunningPlugin
) -> None:
    source, expected = cluster
    target = snaptool.folder / "clear.db"
    assert snaptool("rewrite", source, target, "--config", both, "--decrypt", makes=[target]).code == 0
    values = stored_values(target)
    assert {at: values[at] for at in expected} == expected
    assert sorted(plugin.methods()) == ["Decrypt"] * 8 + ["Version"]


LEGACY = """\
kind: EncryptionConfig
apiVersion: v1
resources:
  - resources:
    - secrets
    providers:
    - kms:
        name: myKmsPlugin
        endpoint: unix:///var/run/kmsPlugin.sock
        cachesize: 100
    - identity: {}
"""


def test_legacy_configuration_works_as_given(
    snaptool: Snaptool, plugin: RunningPlugin, secretbox: Path, tmp_path: Path
) -> None:
    values = sealed(Form.V1_CBC, 3, name="myKmsPlugin") + sealed(Form.V1_GCM, 3, 3, name="myKmsPlugin")
    source, target, back = database(tmp_path / "v1.db", values), tmp_path / "new.db", tmp_path / "back.db"
    legacy = snaptool.write("legacy.yaml", LEGACY)
    there = ("--kms-endpoint", f"myKmsPlugin={plugin.endpoint}")
    ran = snaptool("rewrite", source, target, "--config", legacy, "--new-config", secretbox, *there, makes=[target])
    assert ran.code == 0, ran.text
    ran = snaptool("rewrite", target, back, "--config", secretbox, "--new-config", legacy, *there, makes=[back])
    assert ran.code == 0, ran.text
    expected = [plaintext for _, _, plaintext in values]
    assert list(opened_by(target, config("secretbox")).values()) == expected
    assert list(opened_by(back, LEGACY).values()) == expected
    without = snaptool("rewrite", source, tmp_path / "x.db", "--config", legacy, "--new-config", secretbox)
    assert without.code == 5
    assert_one_summary(without, "'myKmsPlugin'", "no socket at /var/run/kmsPlugin.sock (ENOENT)")


# --- few calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_case_17_and_20_a_rewrite_of_1000_values_over_5_seeds_takes_5_calls_and_3(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, tmp_path: Path, jobs: str
) -> None:
    values = [one for seed in range(5) for one in sealed(Form.V2_SEED, 200, 200 * seed)]
    source, target = database(tmp_path / "old.db", values), tmp_path / "new.db"
    ran = snaptool("rewrite", source, target, "--config", both, "--new-config", both, "--jobs", jobs, makes=[target])
    assert ran.code == 0, ran.text
    assert plugin.methods() == ["Decrypt"] * 5 + ["Status", "Encrypt", "Decrypt"]
    envelopes = [
        decode_v2("kp", stored.removeprefix(b"k8s:enc:kms:v2:kp:")) for stored in stored_values(target).values()
    ]
    assert len({one.source for one in envelopes}) == 1
    assert len({one.body[:32] for one in envelopes}) == 1000
    assert list(opened_by(target, both.read_text()).values()) == [plaintext for _, _, plaintext in values]


def test_case_18_and_19_calls_follow_the_cache_key_of_kube_apiserver(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, secretbox: Path, tmp_path: Path
) -> None:
    key = os.urandom(32)
    wrapped = local_keks(Api.V2).wrap(key)
    forms = [Form.V2_SEED, Form.V2_SEED, Form.V2_DEK, Form.V2_DEK]
    values = [value_of(form, wrapped, key, number) for number, form in enumerate(forms)]
    renamed = value_of(Form.V2_SEED, replace(wrapped, key_id="kek-2"), key, 4)
    noted = value_of(Form.V2_SEED, replace(wrapped, annotations=(("other.example.com", b"1"),)), key, 5)
    source = database(tmp_path / "old.db", [*values, renamed, noted])
    words = ("rewrite", source, tmp_path / "new.db", "--config", both, "--new-config", secretbox, "-o", "json")
    ran = snaptool(*words, "--kms-lost", "kp")
    assert ran.code == 3
    assert [lost["key"] for lost in ran.json["lost"]] == [renamed[0].decode(), noted[0].decode()]
    asked = [(call["key_id"], tuple(call["annotations"])) for call in plugin.calls("Decrypt")]
    usual = "version.testkms.snaptool.example"
    refused = [("kek-1", ("other.example.com",)), ("kek-2", (usual,))]
    assert sorted(asked) == sorted([("kek-1", (usual,)), ("kek-1", (usual,)), *refused, *refused])


def test_case_21_a_rewrite_to_v1_takes_3_calls(
    snaptool: Snaptool, plugin: RunningPlugin, secretbox: Path, tmp_path: Path
) -> None:
    source = in_plaintext(tmp_path, 1000)
    new = snaptool.write("v1.yaml", configuration(kms_entry(Api.V1, "old", plugin.endpoint)))
    target = tmp_path / "new.db"
    ran = snaptool("rewrite", source, target, "--config", secretbox, "--new-config", new, makes=[target])
    assert ran.code == 0, ran.text
    assert plugin.methods() == ["Version", "Encrypt", "Decrypt"]
    envelopes = [
        decode_v1("old", stored.removeprefix(b"k8s:enc:kms:v1:old:")) for stored in stored_values(target).values()
    ]
    assert len({one.source.source for one in envelopes}) == 1
    assert len({one.body[:12] for one in envelopes}) == 1000


def test_case_22_a_data_key_per_object_takes_a_call_each(
    snaptool: Snaptool, plugin: RunningPlugin, secretbox: Path, tmp_path: Path
) -> None:
    source = in_plaintext(tmp_path, 1000)
    new = snaptool.write("v1.yaml", configuration(kms_entry(Api.V1, "old", plugin.endpoint)))
    target = tmp_path / "new.db"
    options = ("--kms-v1-dek-per-object", "--jobs", "2")
    ran = snaptool("rewrite", source, target, "--config", secretbox, "--new-config", new, *options, makes=[target])
    assert ran.code == 0, ran.text
    methods = plugin.methods()
    assert {method: methods.count(method) for method in set(methods)} == {
        "Version": 1,
        "Encrypt": 1000,
        "Decrypt": 1000,
    }
    stored = stored_values(target)
    assert len({decode_v1("old", one.removeprefix(b"k8s:enc:kms:v1:old:")).source for one in stored.values()}) == 1000
    assert opened_by(target, new.read_text()) == stored_values(source)


def test_case_36_plugin_killed_and_restarted_in_the_middle(snaptool: Snaptool, secretbox: Path, tmp_path: Path) -> None:
    values = [one for number in range(150) for one in sealed(Form.V1_GCM, 1, number)]
    source, target = database(tmp_path / "old.db", values), tmp_path / "new.db"
    with kms_plugin() as own:
        old = snaptool.write("old.yaml", configuration(kms_entry(Api.V1, "old", own.endpoint)))
        own.fail({"kind": "slow", "method": "Decrypt", "seconds": 0.02})
        restarts = []

        def restart() -> None:
            while len(own.calls("Decrypt")) < 30:
                time.sleep(0.01)
            own.stop(signal.SIGKILL)
            time.sleep(0.2)
            own.start()
            restarts.append(len(own.calls("Decrypt")))

        thread = threading.Thread(target=restart)
        thread.start()
        options = ("--kms-concurrency", "4")
        ran = snaptool("rewrite", source, target, "--config", old, "--new-config", secretbox, *options, makes=[target])
        thread.join()
        assert ran.code == 0, ran.text
        asked = [call["ciphertext"] for call in own.calls("Decrypt")]
    assert 30 <= restarts[0] < 150
    assert len(set(asked)) == 150
    assert len(asked) - len(set(asked)) <= 4  # those that were in flight when it died
    assert list(opened_by(target, config("secretbox")).values()) == [plaintext for _, _, plaintext in values]


@pytest.fixture
def ten_lost(tmp_path: Path) -> tuple[Path, list[Value], list[Value]]:
    """1,000 values, ten of them under a KEK that `forgetful` does not have."""
    good = [one for seed in range(5) for one in sealed(Form.V2_SEED, 198, 198 * seed)]
    lost = sealed(Form.V2_SEED, 10, 990, kek="kek-2")
    return database(tmp_path / "old.db", good + lost), good, lost


@pytest.fixture
def forgetful(snaptool: Snaptool) -> Iterator[Path]:
    """The configuration of a plugin without kek-2."""
    with kms_plugin() as own:
        own.control(remove="kek-2")
        yield snaptool.write("old.yaml", configuration(kms_entry(Api.V2, "kp", own.endpoint)))


def test_case_38_unknown_key_id_stops_by_default(
    snaptool: Snaptool,
    ten_lost: tuple[Path, list[Value], list[Value]],
    forgetful: Path,
    secretbox: Path,
    tmp_path: Path,
) -> None:
    source, _, lost = ten_lost
    words = ("rewrite", source, tmp_path / "n.db", "--config", forgetful, "--new-config", secretbox, "-o", "json")
    ran = snaptool(*words)
    assert (ran.code, ran.json["error"]["code"]) == (5, "kms_refused")
    counted = f"10 of 1,000 values, also when asked again over a new connection: 10 under key id {hash_key_id('kek-2')}"
    assert_one_summary(ran, f"'kp' gave no key for {counted}: key_unknown", lost[0][0].decode())
    ran = snaptool(*words, "--kms-lost", f"kp={hash_key_id('kek-2')}")
    assert ran.code == 3
    assert [one["key"] for one in ran.json["lost"]] == [key.decode() for key, _, _ in lost]
    assert {one["reason"] for one in ran.json["lost"]} == {"kms_unwrap_failed"}


def test_case_38_keep_leaves_the_ten_byte_for_byte(
    snaptool: Snaptool,
    ten_lost: tuple[Path, list[Value], list[Value]],
    forgetful: Path,
    secretbox: Path,
    tmp_path: Path,
) -> None:
    source, good, lost = ten_lost
    target = tmp_path / "new.db"
    ran = snaptool(
        *("rewrite", source, target, "--config", forgetful, "--new-config", secretbox, "-o", "json"),
        *("--undecryptable", "keep", "--kms-lost", f"kp={hash_key_id('kek-2')}"),
        makes=[target],
    )
    assert ran.code == 0, ran.text
    assert ran.json["records"] == {"total": 1000, "copied": 10, "rewritten": 990, "deleted": 0}
    assert len(ran.json["lost"]) == 10
    after = {key: stored for (key, _), stored in stored_values(target).items()}
    assert {key: after[key] for key, _, _ in lost} == {key: stored for key, stored, _ in lost}
    assert all(after[key].startswith(b"k8s:enc:secretbox:v1:key1:") for key, _, _ in good)


def test_case_38_delete_drops_the_ten(
    snaptool: Snaptool,
    ten_lost: tuple[Path, list[Value], list[Value]],
    forgetful: Path,
    secretbox: Path,
    tmp_path: Path,
) -> None:
    source, good, _ = ten_lost
    target = tmp_path / "new.db"
    options = ("--undecryptable", "delete", "--kms-lost", f"kp={hash_key_id('kek-2')}")
    ran = snaptool(
        "rewrite", source, target, "--config", forgetful, "--new-config", secretbox, *options, makes=[target]
    )
    assert ran.code == 0, ran.text
    assert list(opened_by(target, config("secretbox")).values()) == [plaintext for _, _, plaintext in good]


def test_case_39_key_rotated_between_read_and_write(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, tmp_path: Path
) -> None:
    values = sealed(Form.V2_SEED, 5) + sealed(Form.V2_SEED, 5, 5)
    source, target = database(tmp_path / "old.db", values), tmp_path / "new.db"
    plugin.control(rotate="kek-2")
    ran = snaptool("rewrite", source, target, "--config", both, "--new-config", both, makes=[target])
    assert ran.code == 0, ran.text
    assert [call.get("key_id") for call in plugin.calls("Decrypt")] == ["kek-1", "kek-1", "kek-2"]
    envelopes = [
        decode_v2("kp", stored.removeprefix(b"k8s:enc:kms:v2:kp:")) for stored in stored_values(target).values()
    ]
    assert {one.source.key_id for one in envelopes} == {"kek-2"}


@pytest.mark.parametrize("order", ["first", "second"])
def test_case_26_and_27_names_with_colons_and_two_plugins_of_one_name(
    snaptool: Snaptool, other: RunningPlugin, secretbox: Path, tmp_path: Path, order: str
) -> None:
    values = (
        sealed(Form.V1_GCM, 2, name="a", kek="kek-2")
        + sealed(Form.V1_GCM, 2, 2, name="a:b")
        + sealed(Form.V1_CBC, 2, 4, name="a:b", kek="kek-2")
    )
    source, target = database(tmp_path / "old.db", values), tmp_path / "new.db"
    with kms_plugin() as own:
        own.control(remove="kek-2")
        endpoints = [own.endpoint, other.endpoint] if order == "first" else [other.endpoint, own.endpoint]
        entries = [kms_entry(Api.V1, "a", other.endpoint)] + [kms_entry(Api.V1, "a:b", one) for one in endpoints]
        old = snaptool.write("old.yaml", configuration(*entries))
        ran = snaptool("rewrite", source, target, "--config", old, "--new-config", secretbox, makes=[target])
    assert ran.code == 0, ran.text
    assert list(opened_by(target, config("secretbox")).values()) == [plaintext for _, _, plaintext in values]


def test_a_key_that_one_plugin_unwrapped_serves_its_namesake_of_another_resource(
    snaptool: Snaptool, plugin: RunningPlugin, tmp_path: Path
) -> None:
    key, plaintext = os.urandom(32), envelope("v1", "ConfigMap", b"\n\x03\n\x01c")
    etcd_key = b"/registry/configmaps/default/c"
    stored = stored_value(Form.V1_GCM, local_keks(Api.V1, "old").wrap(key), key, etcd_key, plaintext)
    source, target = database(tmp_path / "old.db", [(etcd_key, stored, plaintext)]), tmp_path / "new.db"
    with kms_plugin() as own:
        secrets = configuration(kms_entry(Api.V1, "old", plugin.endpoint))
        maps = f"- resources: [configmaps]\n  providers:\n  - {kms_entry(Api.V1, 'old', own.endpoint)}\n"
        old = snaptool.write("old.yaml", secrets + maps)
        new = snaptool.write("new.yaml", config("secretbox", resources="configmaps"))
        ran = snaptool("rewrite", source, target, "--config", old, "--new-config", new, makes=[target])
        assert own.calls() == []
    assert ran.code == 0, ran.text
    assert plugin.methods() == ["Version", "Decrypt"]


def test_case_48_value_of_no_configured_provider_is_lost_and_asked_of_nobody(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, secretbox: Path, tmp_path: Path
) -> None:
    source = database(tmp_path / "old.db", sealed(Form.V2_SEED, 1, name="other"))
    ran = snaptool("rewrite", source, tmp_path / "new.db", "--config", both, "--new-config", secretbox, "-o", "json")
    assert ran.code == 3
    assert [lost["reason"] for lost in ran.json["lost"]] == ["unknown_prefix"]
    assert plugin.calls() == []


def test_case_49_concurrency_and_rate_are_kept(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, tmp_path: Path
) -> None:
    source = database(tmp_path / "old.db", [one for number in range(40) for one in sealed(Form.V1_GCM, 1, number)])
    plugin.fail({"kind": "slow", "method": "Decrypt", "seconds": 0.02})
    assert snaptool("inspect", source, "--config", both, "--kms-concurrency", "3").code == 0
    assert max(call["in_flight"] for call in plugin.calls("Decrypt")) == 3
    plugin.fail()
    plugin.forget()
    assert snaptool("inspect", source, "--config", both, "--kms-rate", "40").code == 0
    times = sorted(call["time"] for call in plugin.calls("Decrypt"))
    assert times[-1] - times[0] > 0.9 * 39 / 40


def test_keep_goes_on_without_a_plugin_that_is_given_up(
    snaptool: Snaptool, both: Path, secretbox: Path, tmp_path: Path
) -> None:
    values = sealed(Form.V1_GCM, 3) + sealed(Form.V2_SEED, 3, 3)
    source, target = database(tmp_path / "old.db", values), tmp_path / "new.db"
    gone = ("--kms-endpoint", "old=unix:///nowhere/kms.sock", "--undecryptable", "keep")
    words = ("rewrite", source, target, "--config", both, "--new-config", secretbox, *gone)
    ran = snaptool(*words)
    assert (ran.code, target.exists()) == (5, False)
    assert "with --kms-lost old drops exactly these 3 values" in ran.stderr
    ran = snaptool(*words, "--kms-lost", "old", makes=[target])
    assert ran.code == 0, ran.text
    after = [stored for _, stored in sorted(stored_values(target).items())]
    assert after[:3] == [stored for _, stored, _ in values[:3]]
    assert all(stored.startswith(b"k8s:enc:secretbox:") for stored in after[3:])


# --- another wrapping, the same data --------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_rewrap_changes_the_kek_and_no_data(
    snaptool: Snaptool, plugin: RunningPlugin, other: RunningPlugin, both: Path, tmp_path: Path, jobs: str
) -> None:
    forms = [Form.V2_DEK, Form.V2_SEED, Form.V2_DEK, Form.V2_SEED]
    values = [one for number, form in enumerate(forms) for one in sealed(form, 5, 5 * number)]
    source, target = database(tmp_path / "old.db", values), tmp_path / "new.db"
    text = configuration(kms_entry(Api.V2, "kp", other.endpoint))
    new = snaptool.write("new.yaml", text)
    other.forget()
    ran = snaptool(
        "rewrite", source, target, "--config", both, "--new-config", new, "--rewrap", "--jobs", jobs, makes=[target]
    )
    assert ran.code == 0, ran.text
    assert plugin.methods() == ["Decrypt"] * 4
    methods = other.methods()
    assert (methods.count("Status"), methods.count("Encrypt"), methods.count("Decrypt")) == (1, 4, 4)
    for (key, before, _), after in zip(values, stored_values(target).values(), strict=True):
        was = decode_v2("kp", before.removeprefix(b"k8s:enc:kms:v2:kp:"))
        now = decode_v2("kp", after.removeprefix(b"k8s:enc:kms:v2:kp:"))
        assert now.body == was.body, key
        assert now.source.source_type is was.source.source_type
        assert (was.source.key_id, now.source.key_id) == ("kek-1", "kek-2")
        assert encode_envelope(Envelope(now.source, was.body)) == after.removeprefix(b"k8s:enc:kms:v2:kp:")
    only_other = SavedKeks({"kek-2": b"\x22" * 32}, "kek-2")
    assert list(opened_by(target, text, only_other).values()) == [plaintext for _, _, plaintext in values]


def test_rewrap_of_v1_keeps_bodies_and_reencrypts_what_was_not_under_kms(
    snaptool: Snaptool, plugin: RunningPlugin, other: RunningPlugin, tmp_path: Path
) -> None:
    wrapped = sealed(Form.V1_CBC, 2, name="a") + sealed(Form.V1_GCM, 2, 2, name="a:b") + sealed(Form.V2_SEED, 2, 4)
    plain = envelope("v1", "Secret", b"in clear")
    source = database(tmp_path / "old.db", [*wrapped, (b"/registry/secrets/default/t", plain, plain)])
    entries = [kms_entry(Api.V1, "a", plugin.endpoint), kms_entry(Api.V1, "a:b", plugin.endpoint)]
    old = snaptool.write("old.yaml", configuration(*entries, kms_entry(Api.V2, "kp", plugin.endpoint)))
    text = configuration(kms_entry(Api.V1, "new", other.endpoint))
    new, target = snaptool.write("new.yaml", text), tmp_path / "new.db"
    other.forget()
    ran = snaptool("rewrite", source, target, "--config", old, "--new-config", new, "--rewrap", makes=[target])
    assert ran.code == 0, ran.text
    assert other.methods().count("Encrypt") == 3  # two wrapped keys, one key for what is re-encrypted
    after = list(stored_values(target).values())
    for (_, before, _), now in zip(wrapped[:4], after, strict=False):
        name = b"a:b:" if before.startswith(b"k8s:enc:kms:v1:a:b:") else b"a:"
        was = decode_v1("a", before.removeprefix(b"k8s:enc:kms:v1:" + name))
        assert decode_v1("new", now.removeprefix(b"k8s:enc:kms:v1:new:")).body == was.body
    only_other = SavedKeks({"kek-2": b"\x22" * 32}, "kek-2")
    expected = [plaintext for _, _, plaintext in wrapped] + [plain]
    assert list(opened_by(target, text, only_other).values()) == expected


# --- when a plugin fails --------------------------------------------------------------------------------------------


def assert_one_summary(ran: Ran, *texts: str) -> None:
    """One sentence and one advice on stderr, which say all of `texts`."""
    lines = ran.stderr.splitlines()
    assert 1 <= len(lines) <= 2, ran.stderr
    for text in texts:
        assert text in ran.stderr
    assert all(line.startswith("snaptool: ") for line in lines)


READ_FAULTS: list[tuple[str, dict[str, Any], str]] = [
    (
        "denied",
        {"kind": "error", "method": "Decrypt", "code": "UNKNOWN", "text": "AccessDenied: no"},
        "access_denied",
    ),
    ("disabled", {"kind": "error", "method": "Decrypt", "code": "FAILED_PRECONDITION"}, "key_disabled"),
    ("slow", {"kind": "slow", "method": "Decrypt", "seconds": 3}, "timeout"),
    ("wrong length", {"kind": "plaintext", "method": "Decrypt", "bytes": 31}, "has 31 bytes"),
    ("another key", {"kind": "plaintext", "method": "Decrypt", "bytes": 32}, "opens none"),
    ("garbage", {"kind": "raw", "method": "Decrypt", "hex": "ffff"}, "bad_answer"),
    ("unknown to all", {"kind": "error", "method": "Decrypt", "code": "NOT_FOUND", "text": "gone"}, "key_unknown"),
]


@pytest.mark.parametrize("undecryptable", ["stop", "delete"])
@pytest.mark.parametrize(
    ("fault", "words"), [fault[1:] for fault in READ_FAULTS], ids=[fault[0] for fault in READ_FAULTS]
)
def test_a_failing_read_writes_nothing_and_says_so_once(
    snaptool: Snaptool,
    plugin: RunningPlugin,
    both: Path,
    secretbox: Path,
    tmp_path: Path,
    fault: dict[str, Any],
    words: str,
    undecryptable: str,
) -> None:
    values = [one for seed in range(3) for one in sealed(Form.V2_SEED, 4, 4 * seed)]
    source = database(tmp_path / "old.db", values)
    plugin.fail(fault)
    options = ("--kms-timeout", "0.2", "--undecryptable", undecryptable)
    started = time.monotonic()
    ran = snaptool("rewrite", source, tmp_path / "new.db", "--config", both, "--new-config", secretbox, *options)
    assert ran.code == 5, ran.text
    assert time.monotonic() - started < 20
    assert_one_summary(ran, "'kp'", words)
    assert "--kms-lost kp" in ran.stderr
    assert "12 of 12 values" in ran.stderr
    assert "Encrypt" not in plugin.methods()


@pytest.mark.parametrize("undecryptable", ["stop", "delete"])
def test_a_service_that_refuses_some_calls_has_not_lost_their_values(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, secretbox: Path, tmp_path: Path, undecryptable: str
) -> None:
    source = database(tmp_path / "old.db", [one for number in range(9) for one in sealed(Form.V1_GCM, 1, number)])
    plugin.fail({"kind": "error", "method": "Decrypt", "every": 3, "code": "PERMISSION_DENIED", "text": "not now"})
    options = ("--undecryptable", undecryptable)
    ran = snaptool("rewrite", source, tmp_path / "new.db", "--config", both, "--new-config", secretbox, *options)
    assert ran.code == 5, ran.text
    # Three are refused; of these, asked for again, the last.
    assert_one_summary(ran, "'old' gave no key for 1 of 9 values", "access_denied (PERMISSION_DENIED: not now)")


def test_one_wrong_key_of_several_is_asked_for_again(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, secretbox: Path, tmp_path: Path
) -> None:
    values = [one for seed in range(3) for one in sealed(Form.V2_SEED, 4, 4 * seed)]
    source = database(tmp_path / "old.db", values)
    plugin.fail({"kind": "plaintext", "method": "Decrypt", "first": 1, "bytes": 32})
    target = tmp_path / "new.db"
    ran = snaptool("rewrite", source, target, "--config", both, "--new-config", secretbox, makes=[target])
    assert ran.code == 0, ran.text
    assert len(plugin.calls("Decrypt")) == 4


WRITE_FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("unhealthy", {"kind": "status", "method": "Status", "healthz": "vault sealed"}, "vault sealed"),
    ("old version", {"kind": "status", "method": "Status", "version": "v2alpha1"}, "v2alpha1"),
    ("pass-through", {"kind": "pass_through", "method": "Encrypt", "as": "base64"}, "does not encrypt"),
    ("another key", {"kind": "plaintext", "method": "Decrypt", "bytes": 32}, "another one"),
    ("too long", {"kind": "encrypt", "method": "Encrypt", "ciphertext_bytes": 1025}, "kmsv2_bad_dek_source"),
    ("denied", {"kind": "error", "method": "Encrypt", "code": "PERMISSION_DENIED", "text": "no"}, "access_denied"),
]


@pytest.mark.parametrize(("name", "fault", "words"), WRITE_FAULTS, ids=[fault[0] for fault in WRITE_FAULTS])
def test_a_plugin_unfit_for_writing_ends_the_run_before_it_begins(
    snaptool: Snaptool,
    plugin: RunningPlugin,
    both: Path,
    secretbox: Path,
    tmp_path: Path,
    name: str,
    fault: dict[str, Any],
    words: str,
) -> None:
    plugin.fail(fault)
    ran = snaptool(
        "rewrite", in_plaintext(tmp_path, 5), tmp_path / "new.db", "--config", secretbox, "--new-config", both
    )
    assert ran.code == 5, (name, ran.text)
    assert_one_summary(ran, "'kp'", words)


def test_throttling_slows_a_run_and_does_not_end_it(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, secretbox: Path, tmp_path: Path
) -> None:
    values = [one for number in range(12) for one in sealed(Form.V1_GCM, 1, number)]
    source, target = database(tmp_path / "old.db", values), tmp_path / "new.db"
    plugin.fail(
        {"kind": "error", "method": "Decrypt", "every": 4, "code": "RESOURCE_EXHAUSTED", "text": "slower, please"}
    )
    ran = snaptool("rewrite", source, target, "--config", both, "--new-config", secretbox, makes=[target])
    assert ran.code == 0, ran.text
    assert len(plugin.calls("Decrypt")) > 12
    assert list(opened_by(target, config("secretbox")).values()) == [plaintext for _, _, plaintext in values]


def test_a_plugin_that_dies_while_keys_per_object_are_made_leaves_no_target(
    snaptool: Snaptool, secretbox: Path, tmp_path: Path
) -> None:
    with kms_plugin() as own:
        new = snaptool.write("v1.yaml", configuration(kms_entry(Api.V1, "old", own.endpoint)))
        own.fail({"kind": "exit", "method": "Encrypt", "every": 50})
        ran = snaptool(
            *("rewrite", in_plaintext(tmp_path, 200), tmp_path / "new.db", "--config", secretbox, "--new-config", new),
            "--kms-v1-dek-per-object",
        )
        assert own.process is not None
        own.process.wait(5)
    assert ran.code == 5, ran.text
    assert_one_summary(ran, "'old'")


# --- without the KMS ------------------------------------------------------------------------------------------------


def test_saved_keys_open_a_snapshot_when_the_kms_is_gone(
    snaptool: Snaptool, cluster: tuple[Path, Plaintexts], secretbox: Path, tmp_path: Path
) -> None:
    source, expected = cluster
    keys, target = tmp_path / "deks.json", tmp_path / "new.db"
    with kms_plugin() as own:
        entries = [kms_entry(api, NAME[api], own.endpoint) for api in (Api.V2, Api.V1)]
        old = snaptool.write("gone.yaml", configuration(*entries))
        export = ("kms", "export-deks", source, keys, "--config", old)
        assert snaptool(*export).code == 2
        ran = snaptool(*export, "--yes-write-keys", makes=[keys], shows_secrets=True)
        assert ran.code == 0, ran.text
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert len(json.loads(keys.read_text())["keys"]) == 8
    assert snaptool("verify", source, "--config", old).code == 5
    ran = snaptool(
        *("rewrite", source, target, "--config", old, "--new-config", secretbox, "--dek-file", keys), makes=[target]
    )
    assert ran.code == 0, ran.text
    values = opened_by(target, config("secretbox"))
    assert {at: values[at] for at in expected} == expected
