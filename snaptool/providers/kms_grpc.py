"""The KMS plugins' gRPC protocol over a unix socket: the only socket that snaptool's library opens.

Theory of operation. A plugin is an HTTP/2 server on a unix socket with three unary methods for each API. Messages are
written and read by the table `SCHEMA` and `snaptool.wire`: generated stubs would tie us to a protobuf version, and
grpcio itself needs none. kube-apiserver waits for a plugin to become ready and so turns every mistake into a bare
"deadline exceeded"; here nothing waits. Before the first call the socket is connected to once, plainly, so that the
operating system says what is wrong, and calls fail at once where nothing answers. Only what may pass by itself is
tried again (`Retry`): a plugin that answered before and is gone, a deadline, throttling. gRPC's own deadline is kept
by its own threads, which a flood of frames keeps busy; so every call has a deadline of ours on top (`_bounded`).

gRPC status codes say little: the plugins of the three large clouds answer UNKNOWN and a text for everything. So
`classify` goes by code first and by known words second. A plugin's words may carry what it was sent, in any coding: of
them only what `known_words` knows is shown, and nothing after Encrypt. grpcio is imported when the first channel is
made, and nowhere else in snaptool. What this module must not know: envelopes, objects, and what answers are used for.

Source: docs/formats/kms.md, "The protocol" and "Failures"; kubernetes/kms pkg/util/util.go (endpoints), apiserver
kmsv2/grpc_service.go.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import re
import socket
import stat
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote_to_bytes

from snaptool import signals, wire
from snaptool.errors import InputError
from snaptool.providers.kms_envelope import (
    SourceType,
    WrappedSource,
    decode_map_entry,
    encode_map_entry,
    key_id_problem,
)
from snaptool.providers.kms_pace import RETRIED, Pace, Retry
from snaptool.providers.kms_service import (
    Category,
    KmsAnsweredWrongly,
    KmsError,
    KmsRefused,
    KmsUnreachable,
    ServiceStatus,
)
from snaptool.providers.kms_words import HINTS, classify, known_version, known_words
from snaptool.providers.provider import Api

if TYPE_CHECKING:
    import grpc

# gRPC would take part in every fork, and can wait in it for ever. Worker processes are forked, and never use it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

MAX_PATH_BYTES: Final = 107  # sun_path has 108 bytes with its NUL
V1_VERSION: Final = "v1beta1"
V2_VERSIONS: Final = ("v2", "v2beta1")  # what kube-apiserver 1.29 and newer takes
DEFAULT_TIMEOUT_SECONDS: Final = 10.0  # nobody waits on an API request here: docs/formats/kms.md, "When a plugin fails"

_PROBE_SECONDS: Final = 1.0
_PROBE_PAUSE_SECONDS: Final = 0.05
_SLICE_SECONDS: Final = 0.2

_Answer = TypeVar("_Answer")
_log = logging.getLogger(__name__)


class BadEndpoint(InputError):
    """An endpoint URL that no connection can be made from."""


class GrpcMissing(InputError):
    """A KMS provider is configured, and grpcio is not installed."""


# -- endpoints


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a plugin listens. `address`: the socket's path, or its name in the abstract namespace (without `@`)."""

    address: str
    abstract: bool = False
    warning: str = ""

    @property
    def place(self) -> str:
        """The address as people write it."""
        return f"@{self.address}" if self.abstract else self.address

    @property
    def target(self) -> str:
        """The address as grpcio takes it. It decodes percent escapes and cuts at `?` and `#`, so these are escaped."""
        plain = range(0x20, 0x7F)
        escaped = "".join(
            chr(byte) if byte in plain and byte not in b"%?#" else f"%{byte:02X}" for byte in os.fsencode(self.address)
        )
        return f"unix-abstract:{escaped}" if self.abstract else f"unix:{escaped}"


def parse_endpoint(url: str) -> Endpoint:
    """Read an endpoint as kube-apiserver does: scheme unix, and of the rest only the path, percent-decoded.

    Raises BadEndpoint also where kube-apiserver would take the configuration and then never connect.
    """
    scheme, colon, rest = url.split("#", 1)[0].partition(":")
    if not colon or scheme.lower() != "unix":
        raise BadEndpoint(
            f"KMS endpoint {url!r}: " + ("the scheme must be unix" if url else "empty"),
            hint="write unix:///path/to/plugin.sock, or unix:///@name for an abstract socket",
        )
    rest = rest.split("?", 1)[0]
    host = ""
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        rest = slash + path
    if re.search("%(?![0-9A-Fa-f]{2})", rest):
        raise BadEndpoint(f"KMS endpoint {url!r}: bad percent-escape")
    try:
        path = os.fsdecode(unquote_to_bytes(os.fsencode(rest)))
    except UnicodeEncodeError as error:
        raise BadEndpoint("KMS endpoint: not a text that a file name can have") from error
    if not path.startswith("/") or path in {"/", "/@"} or "\0" in path:
        raise BadEndpoint(
            f"KMS endpoint {url!r}: no socket path in the URL",
            hint="three slashes are needed: unix:///path/to/plugin.sock",
        )
    if path.startswith("/@"):
        endpoint = Endpoint(path[2:], abstract=True)
    else:
        warning = f"the host part {host!r} of the KMS endpoint {url!r} is ignored" if host else ""
        endpoint = Endpoint(path, warning=warning)
    size = len(os.fsencode(endpoint.address))
    if size > MAX_PATH_BYTES:
        raise BadEndpoint(
            f"KMS endpoint {url!r}: a socket path has at most {MAX_PATH_BYTES} bytes, this one has {size}",
            hint="reach the socket through a symlink or a bind mount with a shorter path, and give --kms-endpoint",
        )
    return endpoint


# -- messages

Value = str | bytes | Mapping[str, bytes]

SCHEMA: Final[Mapping[str, Mapping[str, tuple[int, type]]]] = {
    "v1beta1.VersionRequest": {"version": (1, str)},
    "v1beta1.VersionResponse": {"version": (1, str), "runtime_name": (2, str), "runtime_version": (3, str)},
    "v1beta1.EncryptRequest": {"version": (1, str), "plain": (2, bytes)},
    "v1beta1.EncryptResponse": {"cipher": (1, bytes)},
    "v1beta1.DecryptRequest": {"version": (1, str), "cipher": (2, bytes)},
    "v1beta1.DecryptResponse": {"plain": (1, bytes)},
    "v2.StatusRequest": {},
    "v2.StatusResponse": {"version": (1, str), "healthz": (2, str), "key_id": (3, str)},
    "v2.EncryptRequest": {"plaintext": (1, bytes), "uid": (2, str)},
    "v2.EncryptResponse": {"ciphertext": (1, bytes), "key_id": (2, str), "annotations": (3, dict)},
    "v2.DecryptRequest": {"ciphertext": (1, bytes), "uid": (2, str), "key_id": (3, str), "annotations": (4, dict)},
    "v2.DecryptResponse": {"plaintext": (1, bytes)},
}
"""Every message on the socket: member, number and type (dict: map<string, bytes>). Source: kubernetes/kms apis/."""

_PACKAGE: Final = {Api.V1: "v1beta1", Api.V2: "v2"}


@dataclass(frozen=True, slots=True)
class Message:
    """A decoded message: every member of its schema, empty where it was not sent. Unknown fields are dropped."""

    texts: Mapping[str, str]
    blobs: Mapping[str, bytes] = field(repr=False)
    maps: Mapping[str, Mapping[str, bytes]] = field(repr=False)


def encode_message(name: str, members: Mapping[str, Value]) -> bytes:
    """Encode a message of SCHEMA; members without content are not sent (proto3), map entries go by key."""
    parts: list[bytes] = []
    for member, (number, _) in SCHEMA[name].items():
        value = members.get(member, b"")
        if isinstance(value, Mapping):
            parts += [wire.encode_field(number, encode_map_entry(key, value[key])) for key in sorted(value)]
        elif value:
            parts.append(wire.encode_field(number, value.encode() if isinstance(value, str) else value))
    return b"".join(parts)


def decode_message(name: str, encoded: bytes) -> Message:
    """Decode a message of SCHEMA: unknown fields ignored, the last one of a repeated scalar wins.

    Raises wire.BadMessage, also for a string that is not UTF-8.
    """
    schema = {number: (member, kind) for member, (number, kind) in SCHEMA[name].items()}
    texts = {member: "" for member, kind in schema.values() if kind is str}
    blobs = {member: b"" for member, kind in schema.values() if kind is bytes}
    maps: dict[str, dict[str, bytes]] = {member: {} for member, kind in schema.values() if kind is dict}
    for item in wire.fields(encoded):
        if item.number not in schema or item.wire_type != wire.BYTES or isinstance(item.value, int):
            continue
        member, kind = schema[item.number]
        try:
            if kind is str:
                texts[member] = item.value.decode()
            elif kind is bytes:
                blobs[member] = item.value
            else:
                key, value = decode_map_entry(item.value)
                maps[member][key] = value
        except UnicodeDecodeError as error:
            raise wire.BadMessage(f"{member} is not UTF-8", item.start) from error
    return Message(texts, blobs, maps)


# -- the client


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went over one socket: calls by method, tries included; how many of them were second tries, or throttled."""

    calls: Mapping[str, int]
    retries: int
    throttled: int


MAX_ANSWER_BYTES: Final = 4 << 20  # grpc's default, and so kube-apiserver's: docs/formats/kms.md, "The protocol"
GRACE_SECONDS: Final = 0.5
"""How long after gRPC's own deadline ours ends the call."""

_CHANNEL_OPTIONS: Final = (
    # grpcio's default is the escaped path, which upsets strict servers.
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A new channel starts without another one's back-off.
    ("grpc.use_local_subchannel_pool", 1),
)


class GrpcKms:
    """A KMS plugin: a KmsService over gRPC. Safe for threads, not for forks: close it before workers start."""

    def __init__(
        self,
        provider: str,
        api: Api,
        endpoint: Endpoint,
        *,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        retry: Retry | None = None,
        pace: Pace | None = None,
        sleep: Callable[[float], None] = signals.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._provider = provider
        self._api = api
        self._endpoint = endpoint
        self._timeout = timeout
        self._retry = retry or Retry()
        self._pace = pace or Pace()
        self._sleep = sleep
        self._chance = chance
        self._lock = threading.Lock()
        self._version_lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._answered = False
        self._answered_methods: set[str] = set()
        self._closings = 0
        self._version_checked = False
        self._first_status_version = ""
        self._calls: Counter[str] = Counter()
        self._retries = 0
        self._throttled = 0

    @property
    def provider(self) -> str:
        """The provider's name in the configuration."""
        return self._provider

    @property
    def api(self) -> Api:
        """Which KMS API is spoken."""
        return self._api

    @property
    def endpoint(self) -> Endpoint:
        """Where the plugin is looked for."""
        return self._endpoint

    @property
    def traffic(self) -> Traffic:
        """What was sent so far."""
        with self._lock:
            return Traffic(dict(self._calls), self._retries, self._throttled)

    def probe(self) -> None:
        """Connect to the socket once, as any program would, to learn from the operating system what is wrong.

        Raises KmsUnreachable within a second.
        """
        endpoint = self._endpoint
        address = b"\0" + os.fsencode(endpoint.address) if endpoint.abstract else os.fsencode(endpoint.address)
        give_up = time.monotonic() + _PROBE_SECONDS
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.setblocking(False)
                try:
                    connection.connect(address)
                except BlockingIOError as error:  # the queue of connections is full: unix(7), EAGAIN
                    if time.monotonic() > give_up:
                        raise self._no_connection(error) from error
                except OSError as error:
                    raise self._no_connection(error) from error
                else:
                    return
            time.sleep(_PROBE_PAUSE_SECONDS)

    def _no_connection(self, error: OSError) -> KmsUnreachable:
        place, name = self._endpoint.place, errno.errorcode.get(error.errno or 0, "no answer")
        category = Category.UNREACHABLE
        other = f"or give --kms-endpoint {self._provider}=unix:///PATH"
        hint = f"start the plugin, {other}"
        if error.errno == errno.ENOENT:
            problem = f"no socket at {place}"
        elif error.errno == errno.EACCES:
            category = Category.SOCKET_PERMISSION
            problem = f"no permission to connect to {place} as uid {os.geteuid()}: {_permissions(Path(place))}"
            hint = "run as a user who may use the socket; snaptool changes no permissions"
        elif error.errno == errno.EAGAIN:
            category = Category.TIMEOUT
            problem = f"the plugin at {place} takes no connection: its queue is full"
            hint = f"the plugin is busy or stuck: look at its log or start it again, {other}"
        elif self._endpoint.abstract:
            problem = f"nothing listens on the abstract socket {place}"
            hint = f"abstract sockets are seen in their own network namespace only: run there, {other}"
        elif not _is_socket(Path(place)):
            problem = f"{place} is not a socket"
        else:
            problem = f"nothing listens at {place}; the socket file is a leftover"
        return KmsUnreachable(
            f"KMS provider {self._provider!r}: {problem} ({name})",
            provider=self._provider,
            category=category,
            detail=f"{problem} ({name})",
            hint=hint,
        )

    def unwrap(self, source: WrappedSource) -> bytes:
        """Ask Decrypt for the key of `source`: exactly the stored bytes, key id and annotations. Raises KmsError."""
        if self._api is Api.V1:
            request: dict[str, Value] = {"version": V1_VERSION, "cipher": source.source}
            return self._ask("Decrypt", request).blobs["plain"]
        request = {
            "ciphertext": source.source,
            "uid": str(uuid.uuid4()),
            "key_id": source.key_id,
            "annotations": dict(source.annotations),
        }
        return self._ask("Decrypt", request).blobs["plaintext"]

    def wrap(self, key: bytes) -> WrappedSource:
        """Ask Encrypt to wrap `key`: a DEK for v1, a seed for v2. Raises KmsError."""
        if self._api is Api.V1:
            answer = self._ask("Encrypt", {"version": V1_VERSION, "plain": key})
            return WrappedSource(
                provider=self._provider, api=Api.V1, source_type=SourceType.AES_GCM_KEY, source=answer.blobs["cipher"]
            )
        answer = self._ask("Encrypt", {"plaintext": key, "uid": str(uuid.uuid4())})
        return WrappedSource(
            provider=self._provider,
            api=Api.V2,
            source_type=SourceType.HKDF_SEED,
            source=answer.blobs["ciphertext"],
            key_id=answer.texts["key_id"],
            annotations=tuple(sorted(answer.maps["annotations"].items())),
        )

    def status(self) -> ServiceStatus:
        """Ask Status (v2) or Version (v1). `problems`: every check of kube-apiserver 1.29 that failed."""
        if self._api is Api.V1:
            with self._version_lock:
                self._version_checked = False
            return ServiceStatus(version=self._with_retries(self._check_version), healthz="", key_id="")
        texts = self._ask("Status", {}).texts
        version, healthz, key_id = texts["version"], texts["healthz"], texts["key_id"]
        problems = []
        if healthz != "ok":
            problems.append(f"healthz is {known_words(healthz) or 'another text'!r}, not 'ok'")
        with self._lock:
            first = self._first_status_version = self._first_status_version or version
        if version not in V2_VERSIONS:
            problems.append(f"version is {known_version(version)!r}, not one of {', '.join(V2_VERSIONS)}")
        elif version != first:
            problems.append(f"version changed from {known_version(first)!r} to {known_version(version)!r}")
        if key_id_problem(key_id):
            problems.append(f"key_id has {len(key_id.encode())} bytes, not 1 to 1024")
        shown = healthz if healthz == "ok" else known_words(healthz)
        return ServiceStatus(known_version(version), shown, key_id, tuple(problems))

    def close(self) -> None:
        """Cancel outstanding calls and close the connection. The next call opens a new one."""
        with self._lock:
            channel, self._channel = self._channel, None
            self._answered = False
            self._closings += 1
        with self._version_lock:
            self._version_checked = False
        if channel is not None:
            _close(channel)

    # -- one call, with patience

    def _ask(self, method: str, request: Mapping[str, Value]) -> Message:
        """Make one call of this API."""

        def attempt(deadline: float) -> Message:
            if self._api is Api.V1:
                self._check_version(deadline)
            return self._call(method, request, deadline)

        return self._with_retries(attempt)

    def _with_retries(self, attempt: Callable[[float], _Answer]) -> _Answer:
        give_up = time.monotonic() + self._retry.overall
        closings = self._closings
        reached = self._answered
        tries = 0
        while True:
            tries += 1
            try:
                if not self._answered:
                    self.probe()
                    reached = True
                self._pace.wait()
                result = attempt(time.monotonic() + self._timeout)
            except KmsError as error:
                error.attempts = tries
                # A socket that was never there is a mistake, and said at once; one that was there may come back.
                patient = error.category in RETRIED and reached
                wait = self._retry.wait(tries, self._chance())
                if not patient or tries >= self._retry.tries or time.monotonic() + wait > give_up:
                    raise
                if error.category is Category.THROTTLED:
                    self._pace.throttled()
                with self._lock:
                    self._retries += 1
                    self._throttled += error.category is Category.THROTTLED
                _log.info("KMS provider %r: %s, trying again in %.1f s", self._provider, error.category, wait)
                self._sleep(wait)
                if closings != self._closings:
                    raise  # closed meanwhile: whoever did that wants no more calls
            else:
                self._pace.answered()
                return result

    def _check_version(self, deadline: float) -> str:
        """Ask Version before the first v1 call of a connection; a wrong answer is asked for again next time."""
        with self._version_lock:
            if self._version_checked:
                return V1_VERSION
            version = self._call("Version", {"version": V1_VERSION}, deadline).texts["version"]
            if version != V1_VERSION:
                raise KmsAnsweredWrongly(
                    f"KMS provider {self._provider!r} speaks version {known_version(version)!r}, not {V1_VERSION!r}",
                    provider=self._provider,
                    category=Category.WRONG_API,
                )
            self._version_checked = True
            return version

    def _call(self, method: str, request: Mapping[str, Value], deadline: float) -> Message:
        package = _PACKAGE[self._api]
        name = f"{package}.{method}"
        answer = self._send(
            f"/{package}.KeyManagementService/{method}", encode_message(f"{name}Request", request), deadline
        )
        try:
            return decode_message(f"{name}Response", answer)
        except wire.BadMessage as error:
            raise KmsAnsweredWrongly(
                f"KMS provider {self._provider!r}: the answer to {method} is not a protobuf message",
                provider=self._provider,
                category=Category.BAD_ANSWER,
                detail=error.problem,
            ) from error

    def _send(self, path: str, request: bytes, deadline: float) -> bytes:
        channel = self._open_channel()
        import grpc  # noqa: PLC0415 - loaded only when a plugin is talked to; _open_channel said so if it is missing

        method = path.rpartition("/")[2]
        with self._lock:
            self._calls[method] += 1
        try:
            answer = _bounded(channel, path, request, max(0.0, deadline - time.monotonic()))
        except grpc.RpcError as error:
            # Not "from error": its text may show what was sent.
            raise self._failed(path, error.code().name, error.details() or "") from None
        except (TimeoutError, grpc.FutureTimeoutError):
            self._give_up(channel)
            raise self._failed(path, "DEADLINE_EXCEEDED", "") from None
        except (ValueError, grpc.FutureCancelledError) as error:
            # grpcio: the channel was closed under a call, or before it could start.
            raise self._failed(path, "CANCELLED", "the connection was closed") from error
        self._answered = True
        self._answered_methods.add(method)
        return answer

    def _give_up(self, channel: grpc.Channel) -> None:
        """Leave a connection whose own threads do not keep a deadline; the next call opens another one."""
        with self._lock:
            if self._channel is channel:
                self._channel = None
                self._answered = False
        _close(channel)

    def _open_channel(self) -> grpc.Channel:
        try:
            import grpc  # noqa: PLC0415 - see _send
        except ImportError as error:
            raise GrpcMissing(
                f"KMS provider {self._provider!r} is configured, and grpcio is not installed",
                hint="pip install grpcio",
            ) from error
        with self._lock:
            if self._channel is None:
                self._channel = grpc.insecure_channel(self._endpoint.target, options=_CHANNEL_OPTIONS)
            return self._channel

    def _failed(self, path: str, code: str, text: str) -> KmsError:
        category = classify(code, text)
        method = path.rpartition("/")[2]
        # After Encrypt the plugin knows a key that nobody else does.
        words = known_words(text) if method != "Encrypt" else ""
        detail = f"{code}: {words}" if words else code
        if code == "UNAVAILABLE":
            try:
                self.probe()
            except KmsUnreachable as unreachable:
                return unreachable
            if category is not Category.NOT_A_PLUGIN or self._answered_methods:
                category = Category.UNAVAILABLE
        elif category is Category.WRONG_API and method in self._answered_methods:
            category = Category.OTHER
        elif category is Category.BAD_ANSWER:
            detail = f"the answer to {method} is larger than {MAX_ANSWER_BYTES >> 20} MiB, or its metadata than 8 KiB"
        name = f"KMS provider {self._provider!r}"
        place = self._endpoint.place
        if category is Category.WRONG_API:
            message, hint = self._mismatch()
            return KmsUnreachable(f"{name}: {message}", provider=self._provider, category=category, hint=hint)
        if category is Category.NOT_A_PLUGIN:
            message = f"{name}: something answers at {place}, but it is not a gRPC KMS plugin"
            hint = f"give --kms-endpoint {self._provider}=unix:///PATH of the plugin's socket"
            return KmsUnreachable(message, provider=self._provider, category=category, detail=detail, hint=hint)
        hint = HINTS.get(category, "")
        if category is Category.TIMEOUT and code == "DEADLINE_EXCEEDED":
            message = f"{name}: no answer to {method} within {self._timeout:g} s"
            return KmsUnreachable(message, provider=self._provider, category=category, detail=detail, hint=hint)
        message = f"{name}: {method} failed: {category} ({detail})"
        if category in (Category.UNAVAILABLE, Category.TIMEOUT):
            return KmsUnreachable(message, provider=self._provider, category=category, detail=detail, hint=hint)
        kind = KmsAnsweredWrongly if category is Category.BAD_ANSWER else KmsRefused
        return kind(message, provider=self._provider, category=category, detail=detail, hint=hint)

    def _mismatch(self) -> tuple[str, str]:
        """Something speaks gRPC and not this API: find out which of the others it speaks."""
        import grpc  # noqa: PLC0415 - see _send

        questions = {
            "v1": (
                "/v1beta1.KeyManagementService/Version",
                encode_message("v1beta1.VersionRequest", {"version": V1_VERSION}),
            ),
            "v2": ("/v2.KeyManagementService/Status", b""),
            "v2alpha1": ("/v2alpha1.KeyManagementService/Status", b""),
        }
        channel = self._open_channel()
        for api, (path, request) in questions.items():
            if api != self._api:
                try:
                    _bounded(channel, path, request, min(self._timeout, 3.0))
                except (grpc.RpcError, grpc.FutureTimeoutError, grpc.FutureCancelledError, ValueError):
                    continue
                place = self._endpoint.place
                return (
                    f"the plugin at {place} speaks {api} only, the configuration says apiVersion {self._api}",
                    f"set apiVersion: {api} for this provider, or start the plugin with {self._api}",
                )
        return (
            f"something answers at {self._endpoint.place}, but it is not a KMS {self._api} plugin",
            f"give --kms-endpoint {self._provider}=unix:///PATH of the plugin's socket",
        )


def _bounded(channel: grpc.Channel, path: str, request: bytes, seconds: float) -> bytes:
    """Make one call that ends in time whatever the connection is flooded with. Raises what grpcio raises."""
    send: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
    call = send.future(request, timeout=seconds, wait_for_ready=False)
    try:
        return _wait(call, time.monotonic() + seconds + GRACE_SECONDS)
    except BaseException:
        call.cancel()
        raise


def _wait(call: grpc.Future[bytes], until: float) -> bytes:
    import grpc  # noqa: PLC0415 - see GrpcKms._send

    while True:
        left = until - time.monotonic()
        try:
            return call.result(timeout=max(0.0, min(left, _SLICE_SECONDS)))
        except grpc.FutureTimeoutError:
            signals.look()
            if left <= _SLICE_SECONDS:
                raise


def _close(channel: grpc.Channel) -> None:
    """Close a channel, and wait for that only as long as a healthy one takes: a flooded one may never come to it."""
    closing = threading.Thread(target=channel.close, name="snaptool-kms-close", daemon=True)
    closing.start()
    closing.join(GRACE_SECONDS)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def _permissions(path: Path) -> str:
    """Say whose fault EACCES is: the socket's own mode, or a folder on the way that may not be searched."""
    for folder in reversed(path.parents):
        if not os.access(folder, os.X_OK):
            return f"the folder {folder} may not be searched"
    try:
        found = path.stat()
    except OSError as error:
        return f"its mode cannot be read ({error.strerror})"
    return f"it has mode {stat.S_IMODE(found.st_mode):04o} and belongs to uid {found.st_uid}"
