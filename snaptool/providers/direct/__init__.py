"""Key services of the clouds without their plugin: each kind is a KmsService that speaks the plugin's stored form.

In a disaster the plugin is part of what is down. What it wrapped is still in the snapshot, and whoever has an account
of the cloud can have it unwrapped: the request that the plugin would make is made here. `DirectKms` is what a user
says; `open_direct` makes the service, and is the only place that imports a cloud's library. Credentials come from where
the cloud's own tools take them.

Source: docs/clouds.md.
"""

from snaptool.providers.direct.opening import open_direct
from snaptool.providers.direct.said import KINDS, BadDirect, DirectKms, parse_direct

__all__ = ["KINDS", "BadDirect", "DirectKms", "open_direct", "parse_direct"]
