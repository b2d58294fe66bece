"""Whole commands without a plugin: there and back through every kind and form, and what they say when it fails."""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from snaptool import diff
from snaptool.operations.kms_options import KmsOptions
from snaptool.operations.kms_services import NoSuchProvider
from snaptool.providers.direct import parse_direct
from tests.clouds.between import Between, Reply
from tests.clouds.conftest import TOKEN
from tests.clouds.doubles import GOOGLE_KEY, CloudKms, KeyVault, private_key_of, read_jwk
from tests.clouds.test_azure import OURS, Token
from tests.support.cli import GOLDEN, SAMPLES, Snaptool, spellings
from tests.support.kms_snapshots import configuration

hvac = pytest.importorskip("hvac", reason="hvac is not installed: `make clouds` installs it")
pytest.importorskip("azure.core", reason="azure is not installed: `make clouds` installs it")

from snaptool.providers.direct import azure  # noqa: E402 - they need both
from tests.clouds.test_vault import IDENTITY  # noqa: E402 - they need both

AWS_KEY = "bc436485-5092-42b8-92a3-0aa8b93536dc"
FORMS = [
    *("aws", "aws with a context", "gcp", "gcp with a suffix", "azure", "openshift"),
    *("vault plain", "vault kleidi", "vault openbao", "vault trousseau", "vault oracle"),
]
APIS = {
    "openshift": ["v2"],
    "vault kleidi": ["v2"],
    "vault openbao": ["v2"],
    "vault trousseau": ["v1"],
    "vault oracle": ["v1"],
}
EACH = [(form, api) for form in FORMS for api in APIS.get(form, ["v2", "v1"])]


@dataclass
class Cloud:
    """What stands in for a cloud: what the user says, and who heard the calls."""

    said: str
    between: Between

    def calls(self) -> Counter[str]:
        """Calls by method, without what only learns about credentials."""
        found: Counter[str] = Counter()
        for one in self.between.asked:
            target = one.headers.get("X-Amz-Target", "").rpartition(".")[2]
            path = one.path.partition("?")[0]
            if self.said.startswith("azure") and "Authorization" not in one.headers:
                continue
            found[(target or path.rpartition(":")[2].rpartition("/")[2]).lower()] += 1
            for verb in ("encrypt", "decrypt", "keys"):
                if f"/{verb}/" in path and self.said.startswith("vault"):
                    found[verb] += 1
        return found


@pytest.fixture
def cloud(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Cloud]]:
    request.getfixturevalue("no_proxies")
    opened: list[Between] = []

    def make(form: str) -> Cloud:
        kind, _, more = form.partition(" ")
        if kind == "aws":
            context = "?context.cluster=prod" if more else ""
            return Cloud(f"aws:{AWS_KEY}{context}", request.getfixturevalue("local_kms"))
        if kind == "gcp":
            opened.append(CloudKms())
            return Cloud(f"gcp:{GOOGLE_KEY}?endpoint={opened[-1].url}" + ("&suffix=gen2" if more else ""), opened[-1])
        if kind == "vault":
            transit = request.getfixturevalue("transit")
            client = hvac.Client(url=transit.url, token=TOKEN)
            client.adapter.post("/v1/transit/keys/kek", json={})
            client.adapter.close()
            transit.asked.clear()
            return Cloud(f"vault:transit/kek?plugin={more}" + (f"&{IDENTITY}" if more == "openbao" else ""), transit)
        vault = KeyVault({OURS: private_key_of(read_jwk(GOLDEN / "kms.json"))}, tmp_path_factory.mktemp("vault"))
        opened.append(vault)
        settings = azure.AzureKms._settings
        options = {"connection_verify": str(vault.authority), "verify_challenge_resource": False}
        monkeypatch.setattr(azure, "DefaultAzureCredential", Token)
        monkeypatch.setattr(azure.AzureKms, "_settings", lambda self: settings(self) | options)
        return Cloud(f"azure:{vault.where}/{OURS}" + ("?plugin=openshift" if kind == "openshift" else ""), vault)

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def snaptool(tmp_path: Path) -> Snaptool:
    return Snaptool(tmp_path)


def kms_config(snaptool: Snaptool, api: str, name: str = "prod", file: str = "kms.yaml") -> Path:
    entry = f'{{kms: {{apiVersion: {api}, name: "{name}", endpoint: "unix:///nowhere/kms.sock", timeout: 3s}}}}'
    text = configuration(entry).replace("[secrets]", "[secrets, configmaps]")
    return snaptool.write(file, text)


def plaintexts(snaptool: Snaptool, path: Path, *how: str | Path) -> Any:
    ran = snaptool("list", path, "secrets", *how, "-o", "json")
    assert ran.code == 0, ran.text
    return ran.json


def rewritten(snaptool: Snaptool, source: Path, name: str, *how: str | Path) -> Path:
    target = snaptool.folder / name
    ran = snaptool("rewrite", source, target, *how, makes=[target])
    assert ran.code == 0, ran.text
    return target


@pytest.mark.parametrize(("form", "api"), EACH)
def test_a15_there_and_back(snaptool: Snaptool, cloud: Callable[[str], Cloud], form: str, api: str) -> None:
    made = cloud(form)
    direct = ("--kms-direct", f"prod={made.said}")
    local, kms = snaptool.sample("aescbc.yaml"), kms_config(snaptool, api)
    source = snaptool.sample("aescbc-cluster.db")
    sealed = rewritten(snaptool, source, "sealed.db", "--config", local, "--new-config", kms, *direct)
    calls = made.calls()
    assert (calls["decrypt"], calls["encrypt"] <= 2) == (1, True), calls
    made.between.asked.clear()
    back = rewritten(snaptool, sealed, "back.db", "--config", kms, "--new-config", local, "--allow-plaintext", *direct)
    calls = made.calls()
    assert (calls["decrypt"], calls["encrypt"]) == (1, 0), calls
    ran = snaptool("diff", source, back, "--config", local)
    assert ran.code == 0, ran.text
    ran = snaptool("diff", source, sealed, "--config-a", local, "--config-b", kms, *direct)
    assert ran.code == 0, ran.text


def test_a15_another_provider_and_api_in_one_go(snaptool: Snaptool, cloud: Callable[[str], Cloud]) -> None:
    google, vault = cloud("gcp"), cloud("vault oracle")
    v2, v1 = kms_config(snaptool, "v2"), kms_config(snaptool, "v1", "old", "old.yaml")
    local = snaptool.sample("aescbc.yaml")
    sealed = rewritten(
        snaptool,
        snaptool.sample("aescbc-cluster.db"),
        "v2.db",
        *("--config", local, "--new-config", v2, "--kms-direct", f"prod={google.said}"),
    )
    both = ("--kms-direct", f"prod={google.said}", "--new-kms-direct", f"old={vault.said}")
    other = rewritten(snaptool, sealed, "v1.db", "--config", v2, "--new-config", v1, *both)
    ran = snaptool("verify", other, "--config", v1, "--kms-direct", f"old={vault.said}")
    assert ran.code == 0, ran.text


def test_a16_a_key_changes_under_one_name(snaptool: Snaptool, cloud: Callable[[str], Cloud]) -> None:
    google, vault = cloud("gcp"), cloud("vault plain")
    kms = kms_config(snaptool, "v2")
    source, local = snaptool.sample("aescbc-cluster.db"), snaptool.sample("aescbc.yaml")
    old, new = ("--kms-direct", f"prod={google.said}"), ("--new-kms-direct", f"prod={vault.said}")
    sealed = rewritten(snaptool, source, "sealed.db", "--config", local, "--new-config", kms, *old)
    google.between.asked.clear()
    vault.between.asked.clear()
    other = rewritten(snaptool, sealed, "other.db", "--config", kms, "--new-config", kms, "--rewrap", *old, *new)
    assert google.calls() == {"decrypt": 1}
    assert vault.calls()["decrypt"] == 1
    ran = snaptool("verify", other, "--config", kms, "--kms-direct", f"prod={vault.said}")
    assert ran.code == 0, ran.text
    ran = snaptool("diff", source, other, "--config-a", local, "--config-b", kms, "--kms-direct", f"prod={vault.said}")
    assert ran.code == 0, ran.text


def test_a17_a_disabled_key_ends_check_and_rewrite(snaptool: Snaptool, cloud: Callable[[str], Cloud]) -> None:
    made = cloud("gcp")
    direct = ("--kms-direct", f"prod={made.said}")
    local, kms = snaptool.sample("aescbc.yaml"), kms_config(snaptool, "v2")
    how = ("--config", kms, *direct)
    sealed = rewritten(
        snaptool, snaptool.sample("aescbc-cluster.db"), "sealed.db", "--config", local, "--new-config", kms, *direct
    )
    ran = snaptool("kms", "check", *how, "--sample", sealed, "-o", "json")
    assert ran.code == 0, ran.text
    (found,) = ran.json["plugins"]
    assert (found["usable"], found["asked_directly"], found["version"]) == (True, "Google Cloud KMS", None)
    made.between.states[0] = "DISABLED"  # type: ignore[attr-defined]
    ran = snaptool("kms", "check", *how)
    assert ran.code == 5
    assert "gcloud kms keys versions enable" in ran.text
    aside = ("--config", kms, "--new-config", local, "--allow-plaintext", *direct)
    ran = snaptool("rewrite", sealed, snaptool.folder / "x.db", *aside)
    assert ran.code == 5
    assert "key_disabled" in ran.stderr
    assert "--kms-lost prod=sha256:" in ran.stderr
    made.between.states[0] = "DESTROYED"  # type: ignore[attr-defined]
    dropped = snaptool.folder / "dropped.db"
    ran = snaptool(
        *("rewrite", sealed, dropped, "--undecryptable", "delete", "--kms-lost", "prod", *how), makes=[dropped]
    )
    assert ran.code == 0, ran.text


def test_plan_knows_what_is_asked_directly(snaptool: Snaptool, cloud: Callable[[str], Cloud]) -> None:
    made = cloud("vault trousseau")
    direct = ("--kms-direct", f"prod={made.said}")
    kms = kms_config(snaptool, "v1")
    source = snaptool.sample("aescbc-cluster.db")
    sealed = rewritten(
        snaptool, source, "sealed.db", "--config", snaptool.sample("aescbc.yaml"), "--new-config", kms, *direct
    )
    made.between.asked.clear()
    ran = snaptool("kms", "plan", sealed, "--config", kms, *direct, "-o", "json")
    assert made.between.asked == []
    (plan,) = ran.json["plans"]
    assert (plan["calls"], plan["asked_directly"]) == ({"Decrypt": 1}, "Vault transit")


def test_reading_needs_no_key_to_write_with_and_writing_says_so(
    snaptool: Snaptool, cloud: Callable[[str], Cloud]
) -> None:
    made = cloud("aws")
    local, kms = snaptool.sample("aescbc.yaml"), kms_config(snaptool, "v2")
    source = snaptool.sample("aescbc-cluster.db")
    sealed = rewritten(
        snaptool, source, "sealed.db", "--config", local, "--new-config", kms, "--kms-direct", f"prod={made.said}"
    )
    reading = ("--config", kms, "--kms-direct", "prod=aws")
    assert snaptool("verify", sealed, *reading).code == 0
    ran = snaptool("kms", "check", *reading, "--sample", sealed)
    assert ran.code == 0, ran.text
    ran = snaptool(
        *("rewrite", source, snaptool.folder / "x.db", "--config", local, "--new-config", kms),
        *("--kms-direct", "prod=aws", "-o", "json"),
    )
    assert (ran.code, ran.json["error"]["code"]) == (2, "bad_direct")
    assert "aws:arn:aws:kms:" in ran.stderr


def test_a_plugin_that_is_down_is_told_from_what_it_wrapped(snaptool: Snaptool, cloud: Callable[[str], Cloud]) -> None:
    local = snaptool.sample("aescbc.yaml")
    source = snaptool.sample("aescbc-cluster.db")
    for form, offer in (("gcp", "prod=gcp"), ("vault plain", "prod=vault:MOUNT/KEY"), ("azure", "prod=azure:https://")):
        made = cloud(form)
        kms = kms_config(snaptool, "v2", file=f"{form}.yaml")
        sealed = rewritten(
            snaptool,
            source,
            f"{form}.db",
            *("--config", local, "--new-config", kms, "--kms-direct", f"prod={made.said}"),
        )
        ran = snaptool("rewrite", sealed, snaptool.folder / "x.db", "--config", kms, "--decrypt")
        assert (ran.code, offer in ran.stderr) == (5, True), ran.text
        ran = snaptool("get", sealed, "secret", "database", "-n", "shop", "--config", kms)
        assert (ran.code, offer in ran.stderr) == (5, True), ran.text


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("prod=vault:transit/kek", "bad_direct"),
        ("other=aws", "no_such_provider"),
        ("prod=alibaba", "bad_direct"),
        ("prod", "bad_direct"),
        ("prod=vault", "bad_direct"),
        ("prod=aws:key?token=hvs.secretsecretsecret1", "bad_direct"),
        ("prod=vault:transit/kek?plugin=trousseau", "bad_direct"),
        ("prod=azure:http://v.vault.azure.net/keys/k/1", "bad_direct"),
    ],
)
def test_a19_what_is_said_wrongly_is_wrong_usage(
    snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch, said: str, code: str
) -> None:
    for name in ("VAULT_ADDR", "BAO_ADDR"):
        monkeypatch.delenv(name, raising=False)
    ran = snaptool("kms", "check", "--config", kms_config(snaptool, "v2"), "--kms-direct", said, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (2, code), ran.text
    assert ran.json["error"]["remedy"]
    assert "secretsecret" not in ran.text


def test_a19_plugin_and_service_for_one_name_are_refused(snaptool: Snaptool) -> None:
    kms = kms_config(snaptool, "v2")
    both = ("--kms-direct", "prod=aws", "--kms-endpoint", "prod=unix:///x")
    ran = snaptool("kms", "check", "--config", kms, *both)
    assert (ran.code, "--kms-endpoint" in ran.stderr) == (2, True)
    ran = snaptool("kms", "check", "--config", kms, "--kms-direct", "prod=aws", "--kms-direct", "prod=gcp")
    assert (ran.code, "twice" in ran.stderr) == (2, True)


@pytest.mark.parametrize("answer", [403, 503, None], ids=["may not", "sealed", "nobody there"])
def test_what_a_key_service_refuses_is_not_lost_and_no_advice_deletes_it(
    snaptool: Snaptool, cloud: Callable[[str], Cloud], monkeypatch: pytest.MonkeyPatch, answer: int | None
) -> None:
    """Another configuration would not help, and a key that was not given now is not gone: the service is mended."""
    made = cloud("vault plain")
    direct = ("--kms-direct", f"prod={made.said}")
    kms = kms_config(snaptool, "v2")
    source = rewritten(
        snaptool,
        SAMPLES / "aescbc-cluster.db",
        "kms.db",
        "--config",
        snaptool.sample("aescbc.yaml"),
        "--new-config",
        kms,
        *direct,
    )
    if answer is None:
        monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:9")
    for command in (("inspect", source), ("verify", source), ("list", source, "secrets", "--lost")):
        made.between.replies.clear()
        made.between.replies.extend([Reply.of(answer or 0, {"errors": ["no"]})] * 40)
        ran = snaptool(*command, "--config", kms, *direct)
        assert ran.code == 5, ran.text
        assert "configuration is likelier" not in ran.text
        assert "nothing of it is lost for good" in ran.stdout
        assert "snaptool rewrite" not in ran.stdout
        assert "enable the keys" not in ran.text
    made.between.replies.clear()


def test_the_library_compares_where_one_side_alone_has_the_key_service(
    snaptool: Snaptool, cloud: Callable[[str], Cloud]
) -> None:
    made = cloud("vault plain")
    said = f"prod={made.said}"
    local, kms = snaptool.sample("aescbc.yaml"), kms_config(snaptool, "v2")
    target = rewritten(
        *(snaptool, SAMPLES / "aescbc-cluster.db", "kms.db"),
        *("--config", local, "--new-config", kms, "--kms-direct", said),
    )
    options = KmsOptions(direct={"prod": parse_direct(said)})
    before = SAMPLES / "aescbc-cluster.db"
    for found in (
        diff(before, target, config_a=local, config_b=kms, kms=options),
        diff(target, before, config_a=kms, config_b=local, kms=options),
    ):
        assert (found.differs, len(found.undecided), len(found.re_encrypted)) == (False, 0, 15)
    assert len(diff(before, target, config_a=local).undecided) == 15
    with pytest.raises(NoSuchProvider):
        diff(target, target, config=kms, kms=KmsOptions(direct={"other": parse_direct("other=aws")}))
    with pytest.raises(NoSuchProvider):
        diff(before, before, config=local, kms=options)


def test_advice_asks_the_same_key_service_again(snaptool: Snaptool, cloud: Callable[[str], Cloud]) -> None:
    """What is printed to be typed next opens what this command opened."""
    made = cloud("vault plain")
    said = f"prod={made.said}"
    kms = kms_config(snaptool, "v2")
    mixed = snaptool.write("mixed.yaml", kms.read_text())
    source = snaptool.sample("lost-key.db")
    known = snaptool.sample("lost-key.yaml")
    target = rewritten(
        *(snaptool, source, "new.db", "--config", known, "--new-config", kms, "--kms-direct", said),
        *("--undecryptable", "keep"),
    )
    ran = snaptool("inspect", target, "--config", mixed, "--kms-direct", said)
    assert ran.code == 3, ran.text
    assert f"--kms-direct {shlex.quote(said)}" in ran.stdout


@pytest.mark.parametrize(
    "said",
    ["prod=aws", "a:b=aws:alias/x?context.a=b%20c%26&region=eu-west-1", "p=vault:a/b/c?plugin=kleidi", "p=aws:k?pin="],
)
def test_what_is_said_is_read_again_as_the_same(said: str) -> None:
    direct = parse_direct(said)
    assert parse_direct(direct.words) == direct


_BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
from snaptool.cli import run
code = run(sys.argv[1:])
loaded = sorted({{name.partition(".")[0] for name in sys.modules}} & {watched})
print("loaded", loaded, file=sys.stderr)
sys.exit(code)
"""
LIBRARIES = {"boto3", "botocore", "google", "azure", "hvac", "requests", "asyncssh"}


def apart(blocked: set[str], *argv: str | Path) -> subprocess.CompletedProcess[str]:
    script = _BLOCKED.format(blocked=blocked or "{''}", watched=LIBRARIES)
    return subprocess.run([sys.executable, "-c", script, *map(str, argv)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("said", "library", "extra"),
    [
        ("aws", "boto3", "aws"),
        ("gcp", "google", "gcp"),
        ("azure:https://v.vault.azure.net/keys/k/1", "azure", "azure"),
        ("vault:transit/kek", "hvac", "vault"),
    ],
)
def test_a19_a_missing_extra_is_one_line(snaptool: Snaptool, said: str, library: str, extra: str) -> None:
    kms = kms_config(snaptool, "v2")
    ran = apart({library}, "kms", "check", "--config", kms, "--kms-direct", f"prod={said}")
    assert ran.returncode == 2, ran.stderr
    assert f"pip install 'snaptool[{extra}]'" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["inspect", str(SAMPLES / "aescbc-cluster.db")],
        ["get", str(SAMPLES / "aescbc-cluster.db"), "configmap", "settings", "-n", "shop"],
        ["rewrite", "--help"],
    ],
)
def test_a21_no_library_of_a_cloud_is_loaded_where_none_is_named(argv: list[str]) -> None:
    ran = apart(set(), *argv)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.rstrip().endswith("loaded []")


def test_a20_no_token_and_no_key_in_what_is_said_with_v(
    snaptool: Snaptool, cloud: Callable[[str], Cloud], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cloud("vault kleidi")
    direct = ("--kms-direct", f"prod={made.said}")
    local, kms = snaptool.sample("aescbc.yaml"), kms_config(snaptool, "v2")
    source = snaptool.sample("aescbc-cluster.db")
    texts = []
    target = snaptool.folder / "sealed.db"
    ran = snaptool("rewrite", source, target, "-v", "--config", local, "--new-config", kms, *direct, makes=[target])
    texts.append(ran.text)
    sent = [json.loads(one.content) for one in made.between.asked if one.content]
    secrets = [one[member] for one in sent for member in ("plaintext", "ciphertext") if member in one]
    asking: list[tuple[str | Path, ...]] = [
        ("inspect", target, "-v", "--config", kms, *direct),
        ("kms", "check", "--config", kms, *direct),
    ]
    for status in (400, 403, 500):
        made.between.replies.extend([Reply.of(status, {"errors": [" ".join(secrets)]})] * 24)
        texts += [snaptool(*argv).text for argv in asking]
        made.between.replies.clear()
    monkeypatch.setenv("VAULT_TOKEN", "hvs.CAESIJanotherTokenOfTheTests0")
    texts.append(snaptool("verify", target, "-v", "--config", kms, *direct).text)
    shown = "".join(texts)
    for secret in (*secrets, TOKEN, "hvs.CAESIJanotherTokenOfTheTests0"):
        for needle in spellings(secret.encode()):
            assert needle.decode(errors="replace") not in shown
    assert importlib.util.find_spec("hvac") is not None
