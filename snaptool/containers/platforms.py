"""Which platform made a container, by the names that it gave: None where they do not say."""

from __future__ import annotations

import re
from collections.abc import Sequence

from snaptool.containers.archive import Member
from snaptool.containers.recognise import OMNI_LAYER

_K3S_NAME = re.compile(r"(?:etcd-snapshot|on-demand)-.+-[0-9]{9,11}(?:\.zip)?")


def platform_of(name: str, layers: Sequence[str], members: Sequence[Member]) -> str | None:
    """Name the platform of a file called `name`. Source: docs/formats/containers.md, "Platforms".

    `k3s` stands for RKE2 too, which runs the same code: only the database shows which of the two it is.
    """
    inner = layers[-1].partition(":")[2] if layers else ""
    names = {member.name.removeprefix("./") for member in members}
    if OMNI_LAYER in layers:
        return "omni"
    if layers[:1] and layers[0].startswith("zip:"):
        if inner.startswith("/backup/"):
            return "rke1"
        return "k3s" if len(members) == 1 and name == f"{inner}.zip" and _K3S_NAME.fullmatch(inner) else None
    if names & {"etcd-snapshot.db", "kine-state-backup.db"} and "k0s.yaml" in names:
        return "k0s"
    if inner == "/vcluster/snapshot/db":
        return "vcluster"
    if any(member.role == "static_kuberesources" for member in members):
        return "openshift"
    if inner == "./db" and re.match(r"etcd-snapshot-\d{4}-\d{2}-\d{2}-", name):
        return "charmed"
    if re.fullmatch(r"(?:.*/)?etcd-\d{4}-\d{2}-\d{2}_\d{2}:\d{2}:\d{2}/snapshot\.db", inner):
        return "kubespray"
    if name == "etcd.backup.gz":
        return "kops"
    if name.startswith(("Full-", "Incr-")):
        from snaptool.containers.gardener import parse_name  # noqa: PLC0415 - seldom needed

        if parse_name(name) is not None:
            return "gardener"
    if not layers and _K3S_NAME.fullmatch(name):
        return "k3s"
    return None
