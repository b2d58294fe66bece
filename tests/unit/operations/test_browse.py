"""Listings, single values and histories of real snapshots, and of small ones made for a case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptool.errors import InputError
from snaptool.etcd import Revision
from snaptool.kube import UnknownType
from snaptool.operations.browse import (
    ListedRecord,
    NoSuchKey,
    ValueLost,
    find_value,
    history,
    listing,
    open_found,
    order_of_keys,
    parse_target,
)
from snaptool.operations.opening import WrongTrailer, open_snapshot
from snaptool.providers import Keyring, Reason
from tests.unit.operations.builders import (
    OBJECT,
    SAMPLES,
    keyring,
    sample_keyring,
    seal_cbc,
    seal_gcm,
    write_history,
)

A, B = bytes(range(32)), bytes(range(32, 64))


def listed(
    sample: str, word: str | None = None, namespace: str | None = None, *, all_revisions: bool = False
) -> list[ListedRecord]:
    with open_snapshot(SAMPLES / sample) as opened:
        return list(listing(opened, word, namespace, all_revisions=all_revisions))


# --- order ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"a" * 24, b"a" * 24 + b"\0", b"", b"\0", b"\xff" * 9])))
def test_order_of_keys_is_that_of_bytes_and_stable(keys: list[bytes]) -> None:
    buffer = np.frombuffer(b"".join(keys) + bytes(8), dtype=np.uint8)
    lengths = np.array([len(key) for key in keys], dtype=np.int64)
    positions = np.cumsum(lengths) - lengths
    assert order_of_keys(buffer, positions, lengths).tolist() == sorted(range(len(keys)), key=lambda row: keys[row])


def test_keys_at_the_very_end_of_the_buffer_are_ordered_too() -> None:
    keys = [b"bbbbbbbbb", b"b", b"a"]
    buffer = np.frombuffer(bytes(16) + b"".join(keys), dtype=np.uint8)
    lengths = np.array([9, 1, 1])
    assert order_of_keys(buffer, np.array([16, 25, 26]), lengths).tolist() == [2, 1, 0]


def test_keys_that_agree_in_thousands_of_bytes_are_ordered_too() -> None:
    keys = [b"k" * 5000 + b"2", b"k" * 5000 + b"1", b"k" * 5000]
    buffer = np.frombuffer(b"".join(keys), dtype=np.uint8)
    assert order_of_keys(buffer, np.array([0, 5001, 10002]), np.array([5001, 5001, 5000])).tolist() == [2, 1, 0]


# --- list -----------------------------------------------------------------------------------------------------------


def test_a_type_lists_its_live_values_in_order_of_keys() -> None:
    rows = listed("lost-key.db", "secret")
    assert [(row.namespace, row.name, row.revision.main, row.header.name) for row in rows] == [
        ("kube-system", "bootstrap-token-abcdef", 21, "year-2025"),
        ("kube-system", "metrics-reader-token", 22, "year-2025"),
        ("shop", "database", 37, "year-2026"),
        ("shop", "deployer-token", 23, "year-2025"),
        ("shop", "never-rewritten", 19, "year-2024"),
        ("shop", "payment-gateway", 28, "year-2025"),
        ("shop", "rewritten-since", 36, "year-2026"),
        ("shop", "sh.helm.release.v1.shop.v1", 25, "year-2025"),
        ("shop", "sh.helm.release.v1.shop.v2", 26, "year-2025"),
        ("shop", "shop-tls", 24, "year-2025"),
        ("shop", "smtp", 29, "year-2025"),
        ("shop", "written-last", 38, "year-2024"),
    ]
    assert all(row.live and not row.deleted and row.outcome is None for row in rows)


@pytest.mark.parametrize("word", ["secrets", "Secret", "/registry/secrets/"])
def test_types_and_key_prefixes_select_the_same(word: str) -> None:
    assert [row.key for row in listed("lost-key.db", word)] == [row.key for row in listed("lost-key.db", "secret")]


def test_everything_is_as_many_as_etcd_counts() -> None:
    assert len(listed("aescbc-cluster.db")) == 31
    assert len(listed("mixed-providers.db")) == 40


def test_a_namespace_selects_with_a_type_and_without() -> None:
    assert [row.name for row in listed("aescbc-cluster.db", "pods", "shop")] == [
        "web-7c9d6b8f5-aaaaa",
        "web-7c9d6b8f5-bbbbb",
        "worker-5f7c8d9b4-ccccc",
    ]
    everything = listed("aescbc-cluster.db")
    in_shop = [row.key for row in everything if row.namespace == "shop"]
    assert len(in_shop) == 13  # 2 ConfigMaps, 3 Pods, 7 Secrets, a widget
    assert [row.key for row in listed("aescbc-cluster.db", None, "shop")] == in_shop
    assert listed("aescbc-cluster.db", None, "sho") == []


def test_a_namespace_is_told_from_an_object_of_that_name(tmp_path: Path) -> None:
    cluster_scoped = b"/registry/minions/shop/x"  # an odd key: Nodes are in no namespace
    keys = (b"/registry/namespaces/shop", b"/registry/pods/shop/x", b"/registry/pods/y/shop", cluster_scoped)
    namespace = OBJECT.replace(b"Secret", b"Namespace")
    with open_snapshot(write_history(tmp_path / "db", [(key, namespace) for key in keys])) as opened:
        assert [row.key for row in listing(opened, None, "shop")] == [b"/registry/pods/shop/x"]


def test_custom_resources_are_named_by_plural_and_group() -> None:
    (row,) = listed("aescbc-cluster.db", "widgets.example.com")
    assert (row.namespace, row.name, row.resource) == ("shop", "banner", "widgets.example.com")


def test_keys_outside_of_kubernetes_are_listed_as_they_are() -> None:
    (row,) = listed("aescbc-cluster.db", "compact_rev_key")
    assert (row.key, row.namespace, row.size) == (b"compact_rev_key", "", 1)


def test_all_revisions_show_old_values_and_deletions() -> None:
    rows = listed("mixed-providers.db", "/registry/secrets/shop/recreated", all_revisions=True)
    assert [(str(row.revision), row.deleted, row.live, row.version) for row in rows] == [
        ("42", False, False, 1),
        ("46", True, False, 0),
        ("48", False, True, 1),
    ]
    rows = listed("mixed-providers.db", "/registry/secrets/shop/smtp", all_revisions=True)
    assert [(row.revision, row.deleted) for row in rows] == [(Revision(31, 0), False), (Revision(56, 1), True)]


def test_lost_lists_what_does_not_open_and_counts_older_ones() -> None:
    with open_snapshot(SAMPLES / "lost-key.db") as opened:
        rows = listing(opened, "secrets", None, sample_keyring("lost-key.yaml"), lost=True)
        assert [row.key for row in rows] == [
            b"/registry/secrets/shop/never-rewritten",
            b"/registry/secrets/shop/written-last",
        ]
        assert (rows.lost, rows.lost_before) == (2, 1)
        (first, _) = rows
        assert first.outcome is not None
        assert first.outcome.reasons == (Reason.UNKNOWN_KEY_NAME,)
        assert first.reason == "the configuration has aescbc keys for it, but none with the name 'year-2024'"
        every = listing(opened, None, None, sample_keyring("lost-key.yaml"), lost=True, all_revisions=True)
        assert [(row.name, row.revision.main) for row in every] == [
            ("never-rewritten", 19),
            ("rewritten-since", 20),
            ("written-last", 38),
        ]
        found = listing(opened, None, None, sample_keyring("lost-key.yaml", "found-key.yaml"), lost=True)
        assert (len(found), found.lost_before) == (0, 0)


def test_plaintext_that_the_configuration_refuses_is_lost(tmp_path: Path) -> None:
    # found-key.yaml has no identity provider.
    path = write_history(tmp_path / "db", [(b"/registry/secrets/a/plain", OBJECT), (b"/registry/pods/a/p", OBJECT)])
    with open_snapshot(path) as opened:
        (row,) = listing(opened, None, None, sample_keyring("found-key.yaml"), lost=True)
        assert (row.name, row.reason) == (
            "plain",
            "it is stored in clear, and the configuration has no identity provider for its resource",
        )


def test_opened_rows_say_which_key_opened_them(tmp_path: Path) -> None:
    key = b"/registry/secrets/a/b"
    path = write_history(tmp_path / "db", [(key, seal_cbc("with:colon", A, OBJECT))])
    with open_snapshot(path) as opened:
        assert [row.key_name for row in listing(opened)] == ["with"]
        assert [row.key_name for row in listing(opened, keyring=keyring("aescbc", ("with:colon", A)))] == ["with:colon"]


def test_a_word_that_is_no_type_is_refused() -> None:
    with pytest.raises(UnknownType, match="secretz"):
        listed("lost-key.db", "secretz")


def test_a_wrong_trailer_stops_a_listing_unless_told_otherwise(tmp_path: Path) -> None:
    content = (SAMPLES / "lost-key.db").read_bytes()
    (tmp_path / "db").write_bytes(content[:-1] + bytes((content[-1] ^ 1,)))
    with open_snapshot(tmp_path / "db") as opened:
        with pytest.raises(WrongTrailer):
            listing(opened)
        with pytest.raises(WrongTrailer):
            history(opened, parse_target(["ns", "shop"]))
        assert len(listing(opened, skip_hash_check=True)) == 34


# --- targets --------------------------------------------------------------------------------------------------------


def test_targets_are_said_as_with_kubectl() -> None:
    prefixes = ("/registry",)
    assert parse_target(["secret", "smtp"], "shop").keys(prefixes) == (b"/registry/secrets/shop/smtp",)
    assert parse_target(["secret/smtp"], "shop").keys(prefixes) == (b"/registry/secrets/shop/smtp",)
    assert parse_target(["svc", "web"]).keys(prefixes) == (b"/registry/services/specs/default/web",)
    assert parse_target(["ns", "shop"], "ignored").keys(prefixes) == (b"/registry/namespaces/shop",)
    assert parse_target(["widgets.example.com", "w"]).keys(prefixes) == (
        b"/registry/example.com/widgets/default/w",
        b"/registry/example.com/widgets/w",
    )
    assert parse_target(["/registry/x/y"]).keys(prefixes) == (b"/registry/x/y",)
    assert parse_target(["compact_rev_key"]).keys(prefixes) == (b"compact_rev_key",)


def test_only_an_unnamed_namespace_is_an_assumed_one() -> None:
    assert parse_target(["secret", "smtp"]).namespace_assumed
    assert not parse_target(["secret", "smtp"], "default").namespace_assumed
    assert not parse_target(["node", "one"]).namespace_assumed


def test_three_words_are_no_target() -> None:
    with pytest.raises(InputError, match="a type and a name"):
        parse_target(["secret", "a", "b"])


# --- get ------------------------------------------------------------------------------------------------------------


def test_the_current_value_is_found_and_opened() -> None:
    with open_snapshot(SAMPLES / "mixed-providers.db") as opened:
        value = find_value(opened, parse_target(["secret", "database"], "shop"))
        assert (value.revision, value.live, value.header.name, value.record.version) == (
            Revision(44, 0),
            True,
            "gcm-2025",
            2,
        )
        found = open_found(opened, value, sample_keyring("mixed.yaml"))
        assert found.plaintext.startswith(b"k8s\0\n\x0c\n\x02v1\x12\x06Secret")
        assert (found.outcome.key_name, found.outcome.stale) == ("gcm-2025", True)


@pytest.mark.parametrize(("revision", "found"), [(29, 29), (43, 29), (44, 44), (56, 44)])
def test_a_revision_gives_what_a_client_got_then(revision: int, found: int) -> None:
    with open_snapshot(SAMPLES / "mixed-providers.db") as opened:
        value = find_value(opened, parse_target(["secret", "database"], "shop"), revision)
        assert (value.revision.main, value.live) == (found, found == 44)


def test_revisions_at_which_there_is_nothing_say_why() -> None:
    with open_snapshot(SAMPLES / "mixed-providers.db") as opened:
        target = parse_target(["secret", "recreated"], "shop")
        with pytest.raises(NoSuchKey, match=r"oldest record is of revision 42, after 41; .* compacted at 39"):
            find_value(opened, target, 41)
        with pytest.raises(NoSuchKey, match="it was deleted at revision 46") as caught:
            find_value(opened, target, 47)
        assert caught.value.hint == "its value before that: --revision 42"
        with pytest.raises(NoSuchKey, match="the snapshot ends at revision 56, before 57"):
            find_value(opened, target, 57)


def test_a_forgotten_namespace_is_named() -> None:
    with open_snapshot(SAMPLES / "lost-key.db") as opened:
        with pytest.raises(NoSuchKey, match="secrets 'smtp' in namespace 'default'") as caught:
            find_value(opened, parse_target(["secret", "smtp"]))
        assert caught.value.hint == "one of that name is in namespace shop: say -n"
        with pytest.raises(NoSuchKey) as caught:
            find_value(opened, parse_target(["secret", "mtp"]))
        assert "snaptool list SNAPSHOT secrets" in caught.value.hint


def test_a_value_without_its_key_is_lost_with_a_reason() -> None:
    with open_snapshot(SAMPLES / "lost-key.db") as opened:
        value = find_value(opened, parse_target(["/registry/secrets/shop/written-last"]))
        with pytest.raises(ValueLost, match="none with the name 'year-2024'") as caught:
            open_found(opened, value, sample_keyring("lost-key.yaml"))
        assert caught.value.reasons == (Reason.UNKNOWN_KEY_NAME,)
        assert "no matching key was found for the provided AES transformer" in caught.value.hint
        with pytest.raises(ValueLost, match="no configuration was given"):
            open_found(opened, value, None)
        assert open_found(opened, value, sample_keyring("lost-key.yaml", "found-key.yaml")).outcome.position == (
            1,
            0,
            0,
        )


def test_plaintext_is_shown_even_if_the_api_server_would_refuse_it(tmp_path: Path) -> None:
    path = write_history(tmp_path / "db", [(b"/registry/secrets/a/plain", OBJECT)])
    with open_snapshot(path) as opened:
        value = find_value(opened, parse_target(["secret", "plain"], "a"))
        found = open_found(opened, value, sample_keyring("found-key.yaml"))
        assert found.plaintext == OBJECT
        assert "no identity provider" in found.notice
        assert open_found(opened, value, None).notice == ""


def test_same_name_other_secret_and_moved_values_are_told_apart(tmp_path: Path) -> None:
    here, there = b"/registry/secrets/a/here", b"/registry/secrets/a/there"
    changes = [(there, seal_gcm("k", A, OBJECT, there)), (here, seal_gcm("k", A, OBJECT, there))]
    with open_snapshot(write_history(tmp_path / "db", changes)) as opened:
        value = find_value(opened, parse_target([here.decode()]))
        with pytest.raises(ValueLost, match=r"the key fits, .* moved here from /registry/secrets/a/there"):
            open_found(opened, value, keyring("aesgcm", ("k", A)))
        with pytest.raises(ValueLost, match="same name, other secret"):
            open_found(opened, value, keyring("aesgcm", ("k", B)))


def test_garbage_with_valid_padding_is_reported_as_garbage(tmp_path: Path) -> None:
    # Under the right key this is no object either, which is all that AES-CBC lets anybody notice.
    path = write_history(tmp_path / "db", [(b"/registry/secrets/a/b", seal_cbc("k", A, b"\x13garbage"))])
    with open_snapshot(path) as opened:
        value = find_value(opened, parse_target(["secret/b"], "a"))
        with pytest.raises(ValueLost, match="garbage that is no Kubernetes object") as caught:
            open_found(opened, value, keyring("aescbc", ("k", A)))
        assert caught.value.reasons == (Reason.DOUBTFUL_PLAINTEXT,)


# --- history --------------------------------------------------------------------------------------------------------


def test_history_tells_what_happened_under_which_key() -> None:
    with open_snapshot(SAMPLES / "lost-key.db") as opened:
        found = history(opened, parse_target(["secret", "rewritten-since"], "shop"), sample_keyring("lost-key.yaml"))
    assert (found.key, found.revision, found.compacted_revision, found.lost) == (
        b"/registry/secrets/shop/rewritten-since",
        38,
        0,
        1,
    )
    assert [(entry.revision.main, entry.version, entry.key_name, entry.live) for entry in found.entries] == [
        (20, 1, "year-2024", False),
        (35, 2, "year-2025", False),
        (36, 3, "year-2026", True),
    ]
    lost, old, current = found.entries
    assert (lost.digest, lost.outcome is not None and lost.outcome.opened) == (None, False)
    assert "none with the name 'year-2024'" in lost.reason
    assert old.outcome is not None
    assert old.outcome.stale
    assert old.digest != current.digest


def test_equal_plaintexts_have_equal_digests_whatever_they_are_under(tmp_path: Path) -> None:
    key = b"/registry/secrets/a/b"
    values = [seal_cbc("k", A, OBJECT), seal_cbc("k", A, OBJECT, bytes(range(16))), None, OBJECT, OBJECT + b" "]
    with open_snapshot(write_history(tmp_path / "db", [(key, value) for value in values])) as opened:
        first, again, deletion, plain, other = history(
            opened, parse_target([key.decode()]), keyring("aescbc", ("k", A))
        ).entries
    assert first.digest == again.digest == plain.digest is not None
    assert other.digest not in (first.digest, None)
    assert (deletion.deleted, deletion.digest, deletion.header, deletion.outcome) == (True, None, None, None)
    assert [entry.version for entry in (first, again, plain, other)] == [1, 2, 1, 2]


def test_history_without_keys_digests_plaintext_alone(tmp_path: Path) -> None:
    key = b"/registry/secrets/a/b"
    with open_snapshot(write_history(tmp_path / "db", [(key, OBJECT), (key, seal_cbc("k", A, OBJECT))])) as opened:
        found = history(opened, parse_target([key.decode()]))
    assert [entry.digest is None for entry in found.entries] == [False, True]
    assert found.lost == 0


def test_history_says_where_a_value_was_moved_from(tmp_path: Path) -> None:
    here, there = b"/registry/secrets/a/here", b"/registry/secrets/b/there"
    changes = [(there, seal_gcm("k", A, OBJECT, there)), (here, seal_gcm("k", A, OBJECT, there))]
    with open_snapshot(write_history(tmp_path / "db", changes)) as opened:
        (entry,) = history(opened, parse_target([here.decode()]), keyring("aesgcm", ("k", A))).entries
    assert "moved here from /registry/secrets/b/there" in entry.reason


def test_an_empty_keyring_is_not_the_same_as_none() -> None:
    with open_snapshot(SAMPLES / "lost-key.db") as opened:
        assert history(opened, parse_target(["secret", "smtp"], "shop"), Keyring()).lost == 1
        assert history(opened, parse_target(["secret", "smtp"], "shop")).lost == 0
