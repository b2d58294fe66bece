"""`snaptool scratch`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import click

from snaptool import signals
from snaptool.cli import exits, options
from snaptool.cli.command import Command
from snaptool.cli.render import Terminal, echo

_PAUSE = 0.05  # seconds between two looks at a command that runs
_GRACE = 0.5  # seconds that it gets to end


@click.command("scratch", cls=Command, context_settings={"ignore_unknown_options": True})
@options.snapshot_argument()
@click.argument("command", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@options.etcd_option
@click.option("--tcp", is_flag=True, help="Also listen on a port of 127.0.0.1, not only on a unix socket.")
@options.hash_option
@options.terminal_options
def scratch_command(
    snapshot: Path,
    command: tuple[str, ...],
    etcd_bin: Path | None,
    terminal: Terminal,
    *,
    tcp: bool,
    skip_hash_check: bool,
) -> int:
    """Serve a copy of a snapshot with a real etcd, for looking around with etcdctl; SNAPSHOT itself is not touched.

    Stays until Ctrl-C, or runs COMMAND with ETCDCTL_ENDPOINTS set and ends with it. Nothing is left behind. A data
    directory of etcd is served with what only its WAL holds.
    """
    from snaptool.operations.boot import serve_copy
    from snaptool.scratch import find_etcd

    with options.open_snapshot(snapshot) as opened:
        binaries = find_etcd(etcd_bin)
        if opened.data_directory is None:
            notices = opened.notices
        else:
            notices = (f"serving {opened.data_directory} with its WAL",)
        if opened.snapshot.auth_enabled:
            notices += ("authentication is on in it: pass --user NAME to etcdctl, which asks for the password",)
        for notice in notices:
            terminal.note(notice)
        if tcp:
            terminal.note("every user of this machine can read and write the copy through its port on 127.0.0.1")
        with serve_copy(opened, binaries, skip_hash_check=skip_hash_check, tcp=tcp) as server:
            if command:
                return _run(command, os.environ | server.environment())
            echo(f"{binaries} serves a copy of {opened.path} at {server.endpoint}")
            echo(f"    {server.etcdctl('get', '/', '--prefix', '--keys-only')}")
            terminal.note("Ctrl-C ends it and removes the copy")
            try:
                while True:
                    server.check_running(3600)
            except signals.Interrupted:
                signals.answered()
                return exits.DONE


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a command to its end, or to ours."""
    import subprocess

    with subprocess.Popen(command, env=environment) as process:
        try:
            while process.poll() is None:
                signals.sleep(_PAUSE)
        except BaseException:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
            process.kill()
            raise
    return process.returncode
