"""A new configuration in what lies beside a snapshot: RKE1's state file, the keys before Omni's snapshot."""

from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from nacl.secret import SecretBox

from snaptool import open_snapshot
from snaptool.cli import exits
from snaptool.containers.age import AgeWriter
from snaptool.containers.unwrap import Unpacking
from snaptool.providers.config.rules import parse_config
from tests.cli.test_containers import OMNI_KEY, VECTORS, omni_key
from tests.cli.test_embedded import CLUSTER
from tests.cli.test_embedded_rewrite import NEW_SECRET, OLD_SECRET, bootstrap_records, configuration, files_of, key
from tests.support.cli import Snaptool

(RKE1,) = (VECTORS / "zip" / "rke1").glob("*.zip")
(STATELESS,) = (VECTORS / "zip" / "rke1-no-state").glob("*.zip")
OMNI = VECTORS / "omni" / "FFFFFFFF96A8CA5B.snapshot"
STATE = f"/etc/kubernetes/{RKE1.stem}.rkestate"


def state_of(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".rkestate"))
        return json.loads(archive.read(name))


def without_configuration(state: Any) -> Any:
    return {
        part: {name: value for name, value in content.items() if name != "encryptionConfig"}
        for part, content in state.items()
    }


def test_case_64_rkestate_write_back(snaptool: Snaptool) -> None:
    new = configuration(snaptool, "new.yaml", key("secretbox", NEW_SECRET))
    target = snaptool.folder / "rotated.zip"
    words: list[str | Path] = ["--embedded-config", "--new-config", new, "--update-embedded"]
    ran = snaptool("rewrite", RKE1, target, *words, "-o", "json", makes=[target])
    assert (ran.code, ran.json["verified"]) == (exits.DONE, True)
    assert ran.json["embedded"]["place"] == "/etc/kubernetes/rotated.rkestate"
    assert "config_embedded" in {step["code"] for step in ran.json["next"]}
    assert "--use-local-state" in ran.stderr
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist() == ["/backup/rotated", "/etc/kubernetes/rotated.rkestate"]
        assert archive.testzip() is None
        text = archive.read("/etc/kubernetes/rotated.rkestate")
    before, after = state_of(RKE1), state_of(target)
    for part in ("desiredState", "currentState"):
        assert parse_config(after[part]["encryptionConfig"].encode()).entries == parse_config(new.read_bytes()).entries
    assert without_configuration(after) == without_configuration(before), "both texts and nothing else"
    assert list(after["desiredState"]) == list(before["desiredState"])
    assert text == json.dumps(after, indent=2, ensure_ascii=False).encode(), "two spaces, as RKE writes it"
    assert base64.b64encode(OLD_SECRET) not in text
    # And so the backup opens with nothing but itself.
    again = snaptool("inspect", target, "--embedded-config", "-o", "json")
    assert [row["opens"] for row in again.json["census"] if row["provider"] == "secretbox"] == [5]


def test_rkestate_of_decrypted_values_has_the_form_of_a_cluster_whose_encryption_is_off(snaptool: Snaptool) -> None:
    target = snaptool.folder / "plain.zip"
    ran = snaptool("rewrite", RKE1, target, "--embedded-config", "--decrypt", "--update-embedded", makes=[target])
    assert ran.code == exits.DONE
    (entry,) = parse_config(state_of(target)["desiredState"]["encryptionConfig"].encode()).entries
    assert entry.resources == ("secrets",)
    assert [str(provider.kind) for provider in entry.providers] == ["identity", "aescbc"]
    assert base64.b64encode(OLD_SECRET).decode() not in state_of(target)["desiredState"]["encryptionConfig"]


def test_rke1_a_state_that_comes_along_stops_and_one_that_does_not_is_mentioned(snaptool: Snaptool) -> None:
    new = configuration(snaptool, "new.yaml", key("secretbox", NEW_SECRET))
    words: list[str | Path] = ["--embedded-config", "--new-config", new, "--keep-embedded"]
    zipped, plain = snaptool.folder / "new.zip", snaptool.folder / "new.db"
    ran = snaptool("rewrite", RKE1, zipped, *words[:-1], "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "embedded_config_stale")
    assert STATE in ran.json["error"]["problem"]
    kept = snaptool("rewrite", RKE1, zipped, *words, makes=[zipped])
    assert kept.code == exits.DONE
    assert state_of(zipped) == state_of(RKE1)
    ran = snaptool("rewrite", RKE1, plain, *words, makes=[plain])
    assert f"{STATE}, desiredState.encryptionConfig has the old configuration, and does not come along" in ran.stderr
    # With the same keys there is nothing to say.
    old = configuration(snaptool, "old.yaml", key("aescbc", OLD_SECRET, "aescbckey"))
    ran = snaptool("rewrite", RKE1, plain, "-c", old, "--new-config", old, "--force", replaces=[plain])
    assert ran.code == exits.DONE
    assert "does not come along" not in ran.stderr


def test_rke1_nothing_is_updated_in_a_plain_target(snaptool: Snaptool) -> None:
    new = configuration(snaptool, "new.yaml", key("secretbox", NEW_SECRET))
    words: list[str | Path] = ["--embedded-config", "--new-config", new, "--update-embedded"]
    ran = snaptool("rewrite", RKE1, snaptool.folder / "new.db", *words, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "container_target")
    assert "as a zip" in ran.json["error"]["remedy"]


def test_all_places_that_open_are_updated(snaptool: Snaptool) -> None:
    new = configuration(snaptool, "new.yaml", key("secretbox", NEW_SECRET))
    token = snaptool.write("token", CLUSTER["token"])
    target = snaptool.folder / "both.zip"
    words: list[str | Path] = ["--embedded-config", "--token-file", token, "--new-config", new, "--update-embedded"]
    ran = snaptool("rewrite", RKE1, target, *words, "-o", "json", makes=[target])
    assert ran.json["embedded"] == {"place": "/etc/kubernetes/both.rkestate, /bootstrap/69c4de406fab", "records": 1}
    assert "still holds" not in ran.stderr
    record = [one for one in bootstrap_records(target) if one.value][-1]
    found = (files_of(record, CLUSTER["password"]).config or b"", state_of(target)["currentState"]["encryptionConfig"])
    assert parse_config(found[0]).entries == parse_config(found[1].encode()).entries


def test_rke1_without_its_state_has_only_the_record_inside(snaptool: Snaptool) -> None:
    old = configuration(snaptool, "old.yaml", key("aescbc", OLD_SECRET, "aescbckey"))
    new = configuration(snaptool, "new.yaml", key("secretbox", NEW_SECRET))
    words: list[str | Path] = ["-c", old, "--new-config", new, "--update-embedded"]
    ran = snaptool("rewrite", STATELESS, snaptool.folder / "new.zip", *words, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "bootstrap_token")


@pytest.mark.parametrize(
    "state",
    [b"[]", b'{"desiredState": 1}', b"nonsense", b'{"desiredState": {"encryptionConfig": "a: ["}}', b"[" * 100_000],
)
def test_a_state_that_is_none_is_refused_or_left(snaptool: Snaptool, state: bytes) -> None:
    with zipfile.ZipFile(RKE1) as archive:
        content = {one: archive.read(one) for one in archive.namelist()}
    source = snaptool.folder / "odd.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, state if name.endswith("rkestate") else data)
    old = configuration(snaptool, "old.yaml", key("aescbc", OLD_SECRET, "aescbckey"))
    new = configuration(snaptool, "new.yaml", key("secretbox", NEW_SECRET))
    words: list[str | Path] = ["-c", old, "--new-config", new, "--update-embedded"]
    ran = snaptool("rewrite", source, snaptool.folder / "new.zip", *words, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "bootstrap_token")


# --- Omni ---


def talos(snaptool: Snaptool, name: str = "new.yaml") -> Path:
    return configuration(snaptool, name, key("secretbox", NEW_SECRET, "key2"))


def rotate_omni(snaptool: Snaptool, target: Path, *words: str | Path, makes: tuple[Path, ...] = ()) -> Any:
    old = configuration(snaptool, "old.yaml", key("aescbc", OLD_SECRET, "aescbckey"))
    return snaptool("rewrite", OMNI, target, *omni_key(snaptool), "-c", old, *words, "-o", "json", makes=makes)


def test_omni_keys_in_the_header_are_those_of_the_new_configuration(snaptool: Snaptool) -> None:
    target = snaptool.folder / "new.snapshot"
    words = ("--new-config", talos(snaptool), "--container", "same", "--update-embedded")
    ran = rotate_omni(snaptool, target, *words, makes=(target,))
    assert (ran.code, ran.json["verified"]) == (exits.DONE, True)
    assert ran.json["target"]["container"]["layers"] == ["age:nacl_v1"]
    with open_snapshot(target, Unpacking(omni_key=OMNI_KEY)) as opened:
        assert opened.container is not None
        assert opened.container.omni is not None
        assert opened.container.omni.secretbox == base64.b64encode(NEW_SECRET).decode()
        assert opened.container.omni.aescbc == ""
    again = snaptool("inspect", target, *omni_key(snaptool), "--embedded-config", "-o", "json")
    assert [row["opens"] for row in again.json["census"] if row["provider"] == "secretbox"] == [5]
    assert (again.json["file"]["trailer"], again.json["platform"]) == ("ok", ["k3s", "omni"])
    other = snaptool("inspect", target, "--omni-key-file", snaptool.write("other.key", bytes(32)), "-o", "json")
    assert other.json["error"]["code"] == "age_auth"


@pytest.mark.parametrize(
    ("name", "says"), [("key2", "set cluster.secretboxEncryptionSecret in"), ("other", "KubeEtcdEncryptionConfig")]
)
def test_talos_gets_keys_and_no_file(snaptool: Snaptool, name: str, says: str) -> None:
    new = configuration(snaptool, "new.yaml", key("secretbox", NEW_SECRET, name))
    target = snaptool.folder / "plain.db"
    ran = rotate_omni(snaptool, target, "--new-config", new, "--keep-embedded", makes=(target,))
    (step,) = (step["text"] for step in ran.json["next"] if step["code"] == "config_new")
    assert says in step
    assert "--encryption-provider-config" not in step


def test_omni_refusals(snaptool: Snaptool) -> None:
    target = snaptool.folder / "new.snapshot"
    same = ("--container", "same")
    stale = rotate_omni(snaptool, target, "--new-config", talos(snaptool), *same)
    assert (stale.code, stale.json["error"]["code"]) == (exits.USAGE, "embedded_config_stale")
    odd = configuration(snaptool, "odd.yaml", key("secretbox", NEW_SECRET, "another"))
    ran = rotate_omni(snaptool, target, "--new-config", odd, *same, "--update-embedded")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "embedded_unsupported")
    ran = rotate_omni(snaptool, target, "--decrypt", *same, "--update-embedded")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "embedded_unsupported")
    ran = rotate_omni(snaptool, target, "--new-config", talos(snaptool), "--update-embedded")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "container_target")


def test_omni_the_same_container_keeps_the_keys_that_it_has(snaptool: Snaptool) -> None:
    target = snaptool.folder / "same.snapshot"
    ran = snaptool("repair", OMNI, target, *omni_key(snaptool), "--container", "same", makes=[target])
    assert ran.code == exits.DONE
    with (
        open_snapshot(OMNI, Unpacking(omni_key=OMNI_KEY)) as before,
        open_snapshot(target, Unpacking(omni_key=OMNI_KEY)) as after,
    ):
        assert before.container is not None
        assert after.container is not None
        assert after.container.omni == before.container.omni
        assert list(after.snapshot.items(b"key")) == list(before.snapshot.items(b"key"))


@pytest.mark.parametrize("name", ["FFFFFFFF96A8CA5B.snapshot", "no-secretbox.snapshot"])
def test_omni_with_the_same_randomness_gives_the_bytes_that_omni_wrote(name: str) -> None:
    """The vectors were written by Omni's own format, which its code reads: docs/formats/containers.md, "Omni"."""
    stored = (VECTORS / "omni" / name).read_bytes()
    head, _, behind = stored.partition(b"\n---")
    _, stanza, body = head.split(b"\n")
    sealing = bytes.fromhex(stanza.split()[2].decode())
    file_key = SecretBox(OMNI_KEY).decrypt(base64.b64decode(body + b"=" * (-len(body) % 4)), sealing)
    nonce = behind.partition(b"\n")[2][:16]
    random = iter((file_key, sealing, nonce))
    out: list[bytes] = []
    with open_snapshot(VECTORS / "omni" / name, Unpacking(omni_key=OMNI_KEY)) as opened:
        assert opened.container is not None
        assert opened.container.omni is not None
        writer = AgeWriter(out.append, opened.container.omni, lambda _: next(random))
        for at in range(0, opened.source.size, 1000):
            writer.write(bytes(opened.source.buffer[at : at + 1000]))
        writer.finish()
    assert b"".join(out) == stored


def test_what_was_written_beside_the_snapshot_is_read_back(snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's zip writer loses the last byte of the state: nothing is published."""
    real = zipfile.ZipFile.open

    def losing(self: zipfile.ZipFile, name: Any, mode: Any = "r", **more: Any) -> Any:
        entry = real(self, name, mode, **more)
        if mode == "w" and name.filename.endswith(".rkestate"):
            write = entry.write
            entry.write = lambda data: write(data[:-1])  # type: ignore[method-assign]
        return entry

    monkeypatch.setattr(zipfile.ZipFile, "open", losing)
    new = configuration(snaptool, "new.yaml", key("secretbox", NEW_SECRET))
    words: list[str | Path] = ["--embedded-config", "--new-config", new, "--update-embedded"]
    ran = snaptool("rewrite", RKE1, snaptool.folder / "new.zip", *words)
    assert ran.code not in {exits.DONE, exits.USAGE}
