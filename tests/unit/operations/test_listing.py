"""Listings of real snapshots, and of small ones made for a case."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaptool.etcd import Revision
from snaptool.kube.keys import UnknownType
from snaptool.operations.listing import ListedRecord, listing
from snaptool.operations.object import history, parse_target
from snaptool.operations.opening import WrongTrailer, open_snapshot
from snaptool.providers.provider import Reason
from tests.support.stored import write_history
from tests.unit.operations.builders import OBJECT, SAMPLES, keyring, sample_keyring, seal_cbc

A = bytes(range(32))


def listed(
    sample: str, word: str | None = None, namespace: str | None = None, *, all_revisions: bool = False
) -> list[ListedRecord]:
    with open_snapshot(SAMPLES / sample) as opened:
        return list(listing(opened, word, namespace, all_revisions=all_revisions))


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
    pod = OBJECT.replace(b"Secret", b"Pod")
    path = write_history(tmp_path / "db", [(b"/registry/secrets/a/plain", OBJECT), (b"/registry/pods/a/p", pod)])
    with open_snapshot(path) as opened:
        (row,) = listing(opened, None, None, sample_keyring("found-key.yaml"), lost=True)
        assert (row.name, row.reason) == (
            "plain",
            "it is stored in plaintext, and the configuration has no identity provider for its resource",
        )


def test_opened_rows_say_which_key_opened_them(tmp_path: Path) -> None:
    key = b"/registry/secrets/a/b"
    path = write_history(tmp_path / "db", [(key, seal_cbc("with:colon", A, OBJECT))])
    with open_snapshot(path) as opened:
        assert [row.key_name for row in listing(opened)] == ["with:colon"]
        assert [row.header.certain for row in listing(opened)] == [False]
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
