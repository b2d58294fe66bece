"""What does not go together in a rewrite is refused by the command and by the library, in the words of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import snaptool as library
from snaptool.errors import InputError
from tests.support.cli import SAMPLES, Snaptool

OLD, NEW = SAMPLES / "aescbc.yaml", SAMPLES / "secretbox.yaml"
ONLY_LOST = "to drop only what is lost (`snaptool list SOURCE --lost` shows it)"

CONTRADICTIONS: list[tuple[dict[str, Any], str, str]] = [
    (
        {"new_config": NEW, "decrypt": True},
        "exactly one of --new-config and --decrypt can be given",
        "exactly one of new_config and decrypt can be given",
    ),
    (
        {},
        f"--new-config or --decrypt is required; {ONLY_LOST}: --undecryptable older, or delete",
        f"new_config or decrypt is required; {ONLY_LOST}: undecryptable='older', or delete",
    ),
    (
        {"config": OLD, "decrypt": True, "rewrap": True},
        "--rewrap wraps keys with the plugin of --new-config; without it none is wrapped",
        "rewrap wraps keys with the plugin of new_config; without it none is wrapped",
    ),
    (
        {"config": OLD, "decrypt": True, "older_from": [SAMPLES / "lost-key.db"]},
        "--older-from goes with --undecryptable older",
        "older_from goes with undecryptable='older'",
    ),
    (
        {"config": OLD, "new_config": NEW, "update_embedded": True, "keep_embedded": True},
        "--update-embedded goes with a change of keys, and not with --keep-embedded",
        "update_embedded goes with a change of keys, and not with keep_embedded",
    ),
    (
        {"config": OLD, "undecryptable": "delete", "update_embedded": True},
        "--update-embedded goes with a change of keys, and not with --keep-embedded",
        "update_embedded goes with a change of keys, and not with keep_embedded",
    ),
    (
        {"undecryptable": "delete"},
        "--undecryptable delete needs --config: without keys all that is encrypted would go",
        "undecryptable='delete' needs config: without keys all that is encrypted would go",
    ),
]


def words_of(choices: dict[str, Any]) -> list[str | Path]:
    words: list[str | Path] = []
    for name, value in choices.items():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{name.replace('_', '-')}", *([] if one is True else [one])]
    return words


@pytest.mark.parametrize(("choices", "by_command", "by_library"), CONTRADICTIONS)
def test_both_refuse_before_anything_is_read(
    snaptool: Snaptool, choices: dict[str, Any], by_command: str, by_library: str
) -> None:
    absent, target = snaptool.folder / "absent.db", snaptool.folder / "new.db"
    ran = snaptool("rewrite", absent, target, *words_of(choices))
    assert ran.code == 2
    assert by_command in ran.stderr.replace("\n", " ")
    with pytest.raises(InputError) as refused:
        library.rewrite(absent, target, **choices)
    assert (str(refused.value), refused.value.code) == (by_library, "wrong_usage")


@pytest.mark.parametrize("choices", [{"config": OLD, "undecryptable": "delete"}, {"config": OLD, "decrypt": True}])
def test_what_goes_together_comes_as_far_as_the_source(snaptool: Snaptool, choices: dict[str, Any]) -> None:
    absent, target = snaptool.folder / "absent.db", snaptool.folder / "new.db"
    ran = snaptool("rewrite", absent, target, *words_of(choices))
    assert f"cannot read {absent}" in ran.stderr
    with pytest.raises(InputError, match="cannot read"):
        library.rewrite(absent, target, **choices)
