"""What a salvage saved, as JSON and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snaptool.cli import exits
from snaptool.cli.render import echo, print_json
from snaptool.cli.rewritten import file_document, print_written
from snaptool.text import counted, printable

if TYPE_CHECKING:
    from snaptool import documents
    from snaptool.operations.salvage import SalvageReport

_SHOWN = 20


def finish_salvage(saved: SalvageReport, output: str) -> int:
    """Print what was saved; returns the exit code."""
    if output == "json":
        print_json(_salvage_document(saved))
    else:
        _print_salvage(saved)
    return exits.DONE if saved.intact else exits.FINDINGS


def _salvage_document(saved: SalvageReport) -> documents.Salvaged:
    return {
        "source": saved.source,
        "target": file_document(saved.target),
        "intact": saved.intact,
        "records": {
            "total": saved.records,
            "carved": saved.carved,
            "uncertain": saved.uncertain,
            "stale": saved.stale,
        },
        "doubtful": [
            {"key": printable(one.key), "revision": one.revision.main, "sub": one.revision.sub, "page": one.page}
            for one in saved.doubtful
        ],
        "missing": list(saved.missing),
        "dangling_leases": saved.dangling_leases,
        "pages": {"size": saved.page_size, "read": saved.pages_read, "carved": saved.carved_pages},
    }


def _print_salvage(saved: SalvageReport) -> None:
    for sentence in saved.missing[:_SHOWN]:
        echo(f"missing or not proven: {sentence}")
    if len(saved.missing) > _SHOWN:
        echo(f"... and {len(saved.missing) - _SHOWN:,} more; -o json lists all of them")
    for one in saved.doubtful[:_SHOWN]:
        echo(f"left out, several records differ: {printable(one.key)}, revision {one.revision}, page {one.page}")
    if len(saved.doubtful) > _SHOWN:
        echo(f"... and {len(saved.doubtful) - _SHOWN:,} more; -o json lists all of them")
    echo(f"{counted(saved.records, 'record')}: {saved.records - saved.carved:,} from the tree, {saved.carved:,} carved")
    if saved.uncertain:
        uncertain = counted(saved.uncertain, "of the carved ones is", "of the carved ones are")
        echo(f"  {uncertain} older than the compaction: a deletion may be lost")
    if saved.dangling_leases:
        keys = counted(saved.dangling_leases, "key names", "keys name")
        echo(f"  {keys} a lease that is lost: without it nothing expires")
    stale = counted(saved.stale, "stale record")
    echo(f"{stale} in {counted(saved.carved_pages, 'free page')} left out")
    if saved.intact:
        echo("the tree of the source has no fault: nothing is missing")
    print_written(saved.target, "read back and checked")
    digest = "" if saved.target.packed is not None else f", sha256 {saved.target.sha256}"
    echo(f"  status hash {saved.target.hash:x}, revision {saved.target.revision:,}{digest}")
