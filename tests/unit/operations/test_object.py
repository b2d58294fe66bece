"""Single values and histories of real snapshots, and of small ones made for a case."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaptool.errors import InputError
from snaptool.etcd import Revision
from snaptool.operations.object import NoSuchKey, ValueLost, find_value, history, open_found, parse_target
from snaptool.operations.opening import open_snapshot
from snaptool.providers.keyring import Keyring
from snaptool.providers.provider import Reason
from tests.support.stored import write_history
from tests.unit.operations.builders import OBJECT, SAMPLES, keyring, sample_keyring, seal_cbc, seal_gcm

A, B = bytes(range(32)), bytes(range(32, 64))


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
        assert (value.revision, value.live, value.header.name) == (Revision(44, 0), True, "gcm-2025")
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
        assert caught.value.hint == "found in namespace shop; choose with -n"
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
    # Under the right key this is not an object either, which is all that AES-CBC lets anybody notice.
    path = write_history(tmp_path / "db", [(b"/registry/secrets/a/b", seal_cbc("k", A, b"\x13garbage"))])
    with open_snapshot(path) as opened:
        value = find_value(opened, parse_target(["secret/b"], "a"))
        with pytest.raises(ValueLost, match="garbage that is not a Kubernetes object") as caught:
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
