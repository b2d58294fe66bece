"""What of a network is this machine alone: plain http goes there and nowhere else, and there by no proxy.

A proxy that is configured for http would carry what is meant for this machine to another one, in plaintext. Go's
programs, kubectl and vault among them, never ask one about loopback either; Python's libraries do.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Is a host, by its address or name, this machine?"""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def is_here(url: str) -> bool:
    """Does a URL lead to this machine? What is no URL leads nowhere."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def is_private(url: str) -> bool:
    """Is what goes to a URL hidden from everybody on the way: by TLS, or because there is no way?"""
    scheme = url.partition("://")[0].lower()
    return scheme == "https" or (scheme == "http" and is_here(url))
