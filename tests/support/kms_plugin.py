"""TEST ONLY: a KMS plugin in Python, faithful to both APIs, that can be made to fail in every way plugins fail.

It protects nothing: its keys lie in a JSON file beside it. Run it in a process of its own::

    python -m tests.support.kms_plugin --socket /tmp/kms.sock --keks keks.json --journal calls.jsonl --control ctl.sock

One grpcio server answers `v1beta1` and `v2` on one socket (`--socket @name` for an abstract one). Every call is a line
of the journal, written before the call is answered, so that tests count calls rather than believe the client. The
second socket takes one JSON object a line: `rotate`, `remove`, `apis`, `faults` (see `Fault`), and answers when the
change is in force.

Source: docs/formats/kms.md, "The protocol". Messages are those of snaptool.wire; the vectors `wire` of kms.json hold
both ends to protobuf.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import grpc

from snaptool import wire
from tests.support.kms_formats import Aws, Azure, Gcp, Local, OpenShift, Refusal, Wrapped, Wrapper

REPOSITORY = Path(__file__).parents[2]
SERVICES = {"v1beta1.KeyManagementService": "v1", "v2.KeyManagementService": "v2"}
METHODS = {"v1": ("Version", "Encrypt", "Decrypt"), "v2": ("Status", "Encrypt", "Decrypt")}


@dataclass(frozen=True)
class Asked:
    """What a Decrypt is about; empty for other calls."""

    ciphertext: bytes = b""
    key_id: str = ""

    @classmethod
    def of(cls, api: str, method: str, members: dict[int, list[bytes]]) -> Asked:
        if method != "Decrypt":
            return cls()
        if api == "v2":
            return cls(last(members, 1), last(members, 3).decode())
        return cls(last(members, 2), last(members, 2).partition(b"|")[0].decode(errors="replace"))


@dataclass
class Fault:
    """One way to fail. `method`: which calls it meets (None: all). `first` N: only the first N; `every` N: each N-th.

    `key_ids`, `ciphertexts` (hex) in the settings: only Decrypt of what is under one of these key ids, or is one of
    these wrapped keys.

    kinds: `slow` (seconds), `error` (code, text), `status` (any of healthz, version, key_id; `versions`: one answer
    after the other), `encrypt` (any of key_id, ciphertext_bytes, annotations, annotation_bytes), `pass_through` (as
    raw, hex or base64), `plaintext` (bytes: how many random ones, or as: see `distorted`), `raw` (hex: the answer's
    bytes), `pad` (bytes: an unknown field of so many behind the answer), `metadata` (bytes), `exit`, `restart`
    (drops every connection), `authority` (refuse calls whose :authority is not localhost).
    """

    kind: str
    method: str | None = None
    first: int | None = None
    every: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    met: int = 0

    def meets(self, method: str, asked: Asked) -> bool:
        if self.method not in (None, method):
            return False
        if asked.key_id not in self.settings.get("key_ids", [asked.key_id]):
            return False
        if asked.ciphertext.hex() not in self.settings.get("ciphertexts", [asked.ciphertext.hex()]):
            return False
        self.met += 1
        if self.first is not None:
            return self.met <= self.first
        return self.every is None or self.met % self.every == 0


def decode(message: bytes) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    for item in wire.fields(message):
        if isinstance(item.value, bytes):
            found.setdefault(item.number, []).append(item.value)
    return found


def last(fields: dict[int, list[bytes]], number: int) -> bytes:
    return fields.get(number, [b""])[-1]


def encode(**members: str | bytes) -> bytes:
    """Encode members given as f1=…, f2=…; empty ones are left out, as proto3 does."""
    parts = []
    for name, value in members.items():
        raw = value.encode() if isinstance(value, str) else value
        if raw:
            parts.append(wire.encode_field(int(name[1:]), raw))
    return b"".join(parts)


def encode_map(number: int, entries: dict[str, bytes]) -> bytes:
    return b"".join(wire.encode_field(number, encode(f1=key, f2=value)) for key, value in entries.items())


class Plugin(grpc.GenericRpcHandler):
    """Both services, the journal, and the faults in force."""

    def __init__(self, wrapper: Wrapper, journal: Path, address: str) -> None:
        self.wrapper = wrapper
        self.journal = journal.open("a", buffering=1)
        self.address = address
        self.apis = {"v1", "v2"}
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.in_flight = 0
        self.server: grpc.Server | None = None

    # -- serving

    def start(self) -> None:
        server = grpc.server(ThreadPoolExecutor(max_workers=64), handlers=[self])
        if self.address.startswith("@"):
            target = "unix-abstract:" + self.address[1:]
        else:
            target = "unix:" + self.address
            Path(self.address).unlink(missing_ok=True)
        before = os.umask(0o177)  # the socket's mode is the only access control there is
        try:
            server.add_insecure_port(target)
        finally:
            os.umask(before)
        server.start()
        self.server = server

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop(0).wait()
            self.server = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        _, service, method = handler_call_details.method.split("/")
        api = SERVICES.get(service, "")
        if api not in self.apis or method not in METHODS[api]:
            return None

        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            return self.answer(api, method, request, context)

        return grpc.unary_unary_rpc_method_handler(handle)

    # -- one call

    def answer(self, api: str, method: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        # grpcio shows :authority nowhere else.
        authority = context._rpc_event.call_details.host.decode()  # type: ignore[attr-defined]
        with self.lock:
            self.in_flight += 1
            asked = Asked.of(api, method, decode(request))
            faults = [fault for fault in self.faults if fault.meets(method, asked)]
            self.note(api, method, request, authority)
        flood = settings_of(faults, "metadata").get("bytes", 0)
        if flood:
            context.send_initial_metadata(tuple((f"x-{at}", "y" * 1000) for at in range(flood // 1000)))
        try:
            return self.faulty(api, method, request, authority, faults)
        except Refusal as refusal:
            abort(context, refusal)
        finally:
            with self.lock:
                self.in_flight -= 1

    def note(self, api: str, method: str, request: bytes, authority: str) -> None:
        members = decode(request)
        line: dict[str, Any] = {"time": time.time(), "api": api, "method": method, "in_flight": self.in_flight}
        line |= {"authority": authority, "size": len(request)}
        if api == "v1":
            line |= {"version": last(members, 1).decode(), "ciphertext": last(members, 2).hex()}
        elif method == "Decrypt":
            line |= {"ciphertext": last(members, 1).hex(), "uid": last(members, 2).decode()}
            line |= {"key_id": last(members, 3).decode(), "annotations": annotations_hex(members.get(4, []))}
        elif method == "Encrypt":
            line["uid"] = last(members, 2).decode()
        if method == "Encrypt":
            line.pop("ciphertext", None)  # that would be the plaintext
        self.journal.write(json.dumps(line) + "\n")

    def faulty(self, api: str, method: str, request: bytes, authority: str, faults: list[Fault]) -> bytes:
        for fault in faults:
            settings = fault.settings
            if fault.kind == "slow":
                time.sleep(settings["seconds"])
            elif fault.kind == "error":
                raise Refusal(settings["code"], settings.get("text", ""))
            elif fault.kind == "raw":
                return bytes.fromhex(settings["hex"])
            elif fault.kind == "exit":
                os._exit(9)
            elif fault.kind == "restart":
                threading.Thread(target=self.restart).start()
                time.sleep(0.2)
            elif fault.kind == "authority" and authority != "localhost":
                raise Refusal("INVALID_ARGUMENT", f"authority {authority}")
        with self.lock:
            return self.work(api, method, decode(request), faults)

    def work(self, api: str, method: str, members: dict[int, list[bytes]], faults: list[Fault]) -> bytes:
        if method == "Version":
            version = settings_of(faults, "status").get("version", "v1beta1")
            return encode(f1=version, f2=self.wrapper.runtime_name, f3="0.0.1")
        if method == "Status":
            return self.status(faults)
        if api == "v2" and not last(members, 2):
            raise Refusal("INVALID_ARGUMENT", "uid is required")
        if method == "Encrypt":
            return self.encrypt(api, last(members, 2 if api == "v1" else 1), faults)
        return self.decrypt(api, members, faults)

    def status(self, faults: list[Fault]) -> bytes:
        healthz, key_id = self.wrapper.status()
        settings = settings_of(faults, "status")
        version = settings.get("version", self.wrapper.status_version)
        if "versions" in settings:
            version = settings["versions"].pop(0) if len(settings["versions"]) > 1 else settings["versions"][0]
        return encode(f1=version, f2=settings.get("healthz", healthz), f3=settings.get("key_id", key_id))

    def encrypt(self, api: str, plaintext: bytes, faults: list[Fault]) -> bytes:
        wrapped = self.wrapper.wrap(api, plaintext)
        ciphertext, key_id, annotations = wrapped.ciphertext, wrapped.key_id, dict(wrapped.annotations)
        form = settings_of(faults, "pass_through").get("as")
        if form == "annotation":
            annotations["seed.example.com"] = plaintext
        elif form is not None:
            coded = {"raw": plaintext, "hex": plaintext.hex().encode(), "base64": base64.b64encode(plaintext)}
            ciphertext = b"wrapped:" + coded[form]
        settings = settings_of(faults, "encrypt")
        key_id = settings.get("key_id", key_id)
        if "ciphertext_bytes" in settings:
            ciphertext = ciphertext.ljust(settings["ciphertext_bytes"], b"\0")[: settings["ciphertext_bytes"]]
        if "annotations" in settings:
            annotations = {key: value.encode() for key, value in settings["annotations"].items()}
        if "annotation_bytes" in settings:
            annotations = {"a.example.com": b"v" * (settings["annotation_bytes"] - 13)}
        if api == "v1":
            return encode(f1=ciphertext)
        return encode(f1=ciphertext, f2=key_id) + encode_map(3, annotations)

    def decrypt(self, api: str, members: dict[int, list[bytes]], faults: list[Fault]) -> bytes:
        if api == "v1":
            wrapped = Wrapped(last(members, 2))
        else:
            entries = [decode(entry) for entry in members.get(4, [])]
            annotations = {last(entry, 1).decode(): last(entry, 2) for entry in entries}
            wrapped = Wrapped(last(members, 1), last(members, 3).decode(), annotations)
        settings = settings_of(faults, "plaintext")
        padding = settings_of(faults, "pad").get("bytes", 0)
        if "bytes" in settings:
            return encode(f1=random.randbytes(settings["bytes"]))
        key = distorted(self.wrapper.unwrap(api, wrapped), wrapped, settings.get("as", ""))
        return encode(f1=key) + (encode(f99=bytes(padding)) if padding else b"")

    # -- the second socket

    def control(self, command: dict[str, Any]) -> None:
        with self.lock:
            if "faults" in command:
                self.faults = [
                    Fault(one.pop("kind"), one.pop("method", None), one.pop("first", None), one.pop("every", None), one)
                    for one in command["faults"]
                ]
            if "apis" in command:
                self.apis = set(command["apis"])
            if "rotate" in command:
                self.wrapper.rotate(command["rotate"])
            if "remove" in command:
                self.wrapper.remove(command["remove"])


def distorted(key: bytes, wrapped: Wrapped, how: str) -> bytes:
    """Return something near the key, as proxies, caches and mistakes of one line make it."""
    forms = {
        "": key,
        "empty": b"",
        "zeros": bytes(len(key)),
        "reversed": key[::-1],
        "bit": bytes([key[0] ^ 1]) + key[1:],
        "cut": key[:-1],
        "longer": key + b"\1",  # with zeros behind it, a seed is the same key: RFC 2104
        "twice": key + key,
        "half": key[:16],
        "hex": key.hex().encode(),
        "base64": base64.b64encode(key),
        "quoted": repr(key).encode(),
        "hash": hashlib.sha256(key).digest(),
        "wrapped": wrapped.ciphertext,
        "key id": wrapped.key_id.encode(),
        "text": b"internal error, try again later.",
    }
    return forms[how]


def settings_of(faults: list[Fault], kind: str) -> dict[str, Any]:
    for fault in faults:
        if fault.kind == kind:
            return fault.settings
    return {}


def annotations_hex(entries: list[bytes]) -> dict[str, str]:
    decoded = [decode(entry) for entry in entries]
    return {last(entry, 1).decode(): last(entry, 2).hex() for entry in decoded}


def abort(context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
    context.abort(grpc.StatusCode[refusal.code], refusal.text)
    raise AssertionError  # abort does not return


def end_with_stdin() -> None:
    """A test run that was killed cannot stop its plugin; its end of the pipe closes all the same."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def load_keks(path: Path) -> tuple[dict[str, bytes], str]:
    """Read the key file: `{"current": id, "keks": {id: hex}}`."""
    stored = json.loads(path.read_text())
    return {key_id: bytes.fromhex(key) for key_id, key in stored["keks"].items()}, stored["current"]


def main() -> None:
    parser = argparse.ArgumentParser(description="TEST ONLY KMS plugin: its keys protect nothing.")
    parser.add_argument("--socket", required=True)
    parser.add_argument("--keks", type=Path)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--kind", choices=["local", "aws", "gcp", "azure", "openshift"], default="local")
    parser.add_argument("--encryption-context", default="")
    parser.add_argument("--until-stdin-ends", action="store_true", help="end with the process that started this one")
    options = parser.parse_args()
    if options.until_stdin_ends:
        threading.Thread(target=end_with_stdin, daemon=True).start()
    kinds: dict[str, Callable[[], Wrapper]] = {
        "local": lambda: Local(*load_keks(options.keks)),
        "aws": lambda: Aws(context=options.encryption_context),
        "gcp": Gcp,
        "azure": Azure,
        "openshift": OpenShift,
    }
    plugin = Plugin(kinds[options.kind](), options.journal, options.socket)

    class Control(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                try:
                    plugin.control(json.loads(line))
                    answer: dict[str, Any] = {"ok": True}
                except (KeyError, ValueError, Refusal) as error:
                    answer = {"ok": False, "error": repr(error)}
                self.wfile.write(json.dumps(answer).encode() + b"\n")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    plugin.start()
    with socketserver.ThreadingUnixStreamServer(str(options.control), Control) as control:
        control.daemon_threads = True
        sys.stdout.write("ready: TEST ONLY KMS plugin\n")
        sys.stdout.flush()
        try:
            control.serve_forever()
        finally:
            plugin.stop()


# -- for tests: a plugin in another process, and what it was asked


class RunningPlugin:
    """A plugin process. `calls()` reads its journal; `control(…)` changes it at run time."""

    def __init__(self, folder: Path, address: str, options: tuple[str, ...]) -> None:
        self.folder = folder
        self.address = address
        self.endpoint = f"unix:///{address}" if address.startswith("@") else f"unix://{address}"
        self.journal = folder / "journal.jsonl"
        self.options = options
        self.process: subprocess.Popen[str] | None = None
        self.seen = 0

    def start(self) -> None:
        control = self.folder / "control.sock"
        control.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.support.kms_plugin", "--socket", self.address]
        command += ["--until-stdin-ends"]
        command += ["--keks", str(self.folder / "keks.json"), "--journal", str(self.journal)]
        command += ["--control", str(control), *self.options]
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("ready"), "the test plugin did not start"

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.send_signal(how)
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None

    def control(self, **command: Any) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.folder / "control.sock"))
            with connection.makefile("rw") as stream:
                stream.write(json.dumps(command) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
        assert answer == {"ok": True}, answer

    def fail(self, *faults: dict[str, Any]) -> None:
        """Put these faults in force, and no others."""
        self.control(faults=list(faults))

    def calls(self, method: str | None = None) -> list[dict[str, Any]]:
        """Return the calls since `forget`, oldest first."""
        lines = self.journal.read_text().splitlines()[self.seen :] if self.journal.exists() else []
        found = [json.loads(line) for line in lines]
        return [call for call in found if method in (None, call["method"])]

    def methods(self) -> list[str]:
        return [call["method"] for call in self.calls()]

    def forget(self) -> None:
        """Count from here."""
        self.seen = len(self.journal.read_text().splitlines()) if self.journal.exists() else 0


@contextlib.contextmanager
def kms_plugin(*options: str, address: str | None = None) -> Iterator[RunningPlugin]:
    """Run a plugin in a process of its own, in a folder of its own with a short name: socket paths have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="testkms-") as name:
        folder = Path(name)
        keks = {f"kek-{number}": f"{number}{number}" * 32 for number in range(1, 6)}
        (folder / "keks.json").write_text(json.dumps({"current": "kek-1", "keks": keks}))
        plugin = RunningPlugin(folder, address or str(folder / "kms.sock"), options)
        plugin.start()
        try:
            yield plugin
        finally:
            plugin.stop()


if __name__ == "__main__":
    main()
