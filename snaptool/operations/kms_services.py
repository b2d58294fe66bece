"""The key services of a job: for each KMS provider its plugin, or the service behind it where the user says so."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from snaptool.errors import InputError
from snaptool.providers.config.model import KmsConfig
from snaptool.providers.direct import BadDirect, DirectKms, open_direct
from snaptool.providers.direct.service import DirectService, Patience
from snaptool.providers.kms_pace import Pace, Retry
from snaptool.providers.kms_service import KmsService

if TYPE_CHECKING:
    from snaptool.operations.kms_options import KmsOptions


class Services:
    """The key services of a job. Nothing is connected to before it is asked; leaving the block closes all."""

    def __init__(self, options: KmsOptions, retry: Retry | None = None) -> None:
        self._options = options
        self._retry = retry or Retry()
        self._made: dict[tuple[KmsConfig, DirectKms | None], KmsService] = {}

    def of(self, config: KmsConfig, *, new: bool = False) -> KmsService:
        """Return the service of a provider; `new`: of a new configuration. Raises InputError."""
        direct = self._options.direct_for(config, new=new)
        if (config, direct) not in self._made:
            ask = self._options.ask
            self._made[config, direct] = self._make(config, direct) if ask is None else ask(config)
        return self._made[config, direct]

    def _make(self, config: KmsConfig, direct: DirectKms | None) -> KmsService:
        from snaptool.providers.kms_grpc import DEFAULT_TIMEOUT_SECONDS, GrpcKms, parse_endpoint  # noqa: PLC0415 - seldom needed, and heavy

        options, api = self._options, config.api
        timeout = options.timeout or max(config.timeout, DEFAULT_TIMEOUT_SECONDS)
        if direct is not None:
            return open_direct(direct, api, Patience(timeout, self._retry, Pace(options.rate)))
        endpoint = parse_endpoint(options.endpoints.get(config.name, config.endpoint))
        return GrpcKms(config.name, api, endpoint, timeout=timeout, retry=self._retry, pace=Pace(options.rate))

    def ready(self, configs: Sequence[KmsConfig], *, new: bool = False) -> None:
        """Make those that stand in for plugins, so that what is missing for them is said before any work."""
        for config in configs:
            if self._options.direct_for(config, new=new) is not None and self._options.ask is None:
                service = self.of(config, new=new)
                assert isinstance(service, DirectService)
                service.connect()

    def close(self) -> None:
        """Close all."""
        for service in self._made.values():
            service.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NoSuchProvider(InputError):
    """A key service is given for a provider that no configuration has."""


def require_direct(options: KmsOptions, old: Sequence[KmsConfig], new: Sequence[KmsConfig] = ()) -> None:
    """Refuse a key service for what is not there, or that stands in for a plugin whose address is given as well.

    Raises NoSuchProvider, BadDirect.
    """
    for flag, given, configs in (
        ("--kms-direct", options.direct, [*old, *new]),
        ("--new-kms-direct", options.new_direct, [*new]),
    ):
        names = sorted({config.name for config in configs})
        for name in given:
            if name not in names:
                which = "new configuration" if given is options.new_direct else "configuration"
                raise NoSuchProvider(
                    f"{flag} {name}: the {which} has no KMS provider of the name {name!r}",
                    hint=f"its KMS providers are {', '.join(map(repr, names))}" if names else "it has no KMS provider",
                )
            if name in options.endpoints:
                raise BadDirect(
                    f"{flag} and --kms-endpoint are both given for {name!r}",
                    hint="give one of them: the service is asked, or the plugin",
                )
