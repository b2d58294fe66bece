"""The man pages: every command has one, with each of its options, and man(1) reads it without a complaint."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from snaptool.cli import cli
from tests.docs import commands, long_name, records
from tests.man import pages, roff, write


def test_every_command_has_a_page_with_each_of_its_options() -> None:
    made = pages()
    for command, context in commands(cli, "snaptool"):
        page = made.pop(context.command_path.replace(" ", "-") + ".1")
        for record in records(command, context):
            assert roff(long_name(record)) in page
    assert not made


def test_text_is_never_a_request() -> None:
    assert roff(".so /etc/passwd\n'tis \\n(yr") == "\\&.so /etc/passwd\n\\&'tis \\en(yr"


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_finds_no_fault_in_a_page(tmp_path: Path) -> None:
    write(tmp_path)
    for page in sorted(tmp_path.glob("*.1")):
        run = subprocess.run(
            ["groff", "-man", "-ww", "-Tascii", str(page)], capture_output=True, text=True, check=True, timeout=60
        )
        assert run.stderr == "", page.name


def test_a_shell_can_complete_commands_and_options() -> None:
    tool = shutil.which("snaptool", path=str(Path(sys.executable).parent))
    assert tool is not None
    asked = {"COMP_WORDS": "snaptool rewrite --unde", "COMP_CWORD": "2", "_SNAPTOOL_COMPLETE": "bash_complete"}
    run = subprocess.run([tool], env=os.environ | asked, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["plain,--undecryptable", "plain,--undecodable"]
