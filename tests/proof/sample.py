"""Make samples/kube-apiserver again: `python -m tests.proof.sample`, after `make peers apiserver`.

What a real kube-apiserver stored, and what it served for it over its API: snaptool has to show the same objects without
either. Names of objects and keys are the same in every run; uids, times and nonces are the server's.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.peers.build import PEERS, pinned
from tests.proof.stories import NEW_KEY, OLD_KEY, aescbc, configuration, find_programs, make_cluster

FOLDER = Path(__file__).parents[2] / "samples" / "kube-apiserver"
NOTICE = "# TEST ONLY. These keys are published with snaptool's sources: never encrypt anything with them.\n"
README = """\
# What a real kube-apiserver stored

Made by {versions}, with `python -m tests.proof.sample`: Secrets, ConfigMaps, a ServiceAccount and a custom
resource, written over the REST API with `--encryption-provider-config`. Half-way the API server was started again with
a new first key.

**The keys in the configuration files are for tests only.** They are published, so they protect nothing.

| File | Holds |
| --- | --- |
| `rotated.db` | the snapshot: objects under `{old}` and `{new}`, old revisions, tombstones, the server's own objects |
| `rotated.yaml` | the configuration at the end: opens everything |
| `lost-key.yaml` | the same without `{old}`: a list of Secrets fails with it |
| `served.json` | the objects of namespace `proof` as the API served them when the snapshot was taken, by path |
"""


def main() -> int:
    """Make the folder's files. Returns the exit code."""
    version = pinned("kubernetes")[-1]
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sample-") as folder:
        program = PEERS / f"kubernetes-{version}" / "kube-apiserver"
        programs = find_programs(program, version, PEERS / f"etcd-{pinned('etcd')[-1]}", Path(folder))
        made = make_cluster(programs, FOLDER / "rotated.db", large=False)
    (FOLDER / "rotated.yaml").write_text(NOTICE + configuration(aescbc(NEW_KEY, OLD_KEY)))
    (FOLDER / "lost-key.yaml").write_text(NOTICE + configuration(aescbc(NEW_KEY)))
    lines = [
        f"{json.dumps(path)}: [\n" + ",\n".join(json.dumps(item) for item in items.values()) + "\n]"
        for path, items in made.served.items()
    ]
    (FOLDER / "served.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    (FOLDER / "README.md").write_text(README.format(versions=programs.versions, old=OLD_KEY, new=NEW_KEY))
    return 0


if __name__ == "__main__":
    sys.exit(main())
