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


def test_data_keys_are_not_rewrapped_without_a_kms(snaptool: Snaptool) -> None:
    target = snaptool.folder / "new.db"
    choices: dict[str, Any] = {"config": OLD, "new_config": NEW, "rewrap": True}
    problem = "rewrap is for data keys that a KMS wraps, and the new configuration has no KMS provider"
    ran = snaptool("rewrite", SAMPLES / "aescbc-cluster.db", target, *words_of(choices))
    assert (ran.code, problem in ran.stderr) == (2, True)
    with pytest.raises(InputError, match=problem):
        library.rewrite(SAMPLES / "aescbc-cluster.db", target, **choices)
    assert not target.exists()


EMPTY: list[tuple[dict[str, Any], str]] = [
    ({"config": [], "undecryptable": "delete"}, "undecryptable='delete' needs config"),
    ({"config": (), "new_config": NEW, "undecryptable": "older"}, "undecryptable='older' needs config"),
    ({"config": OLD, "new_config": []}, "new_config or decrypt is required"),
]


@pytest.mark.parametrize(("choices", "problem"), EMPTY)
def test_an_empty_list_of_configurations_is_none(tmp_path: Path, choices: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        library.rewrite(SAMPLES / "lost-key.db", tmp_path / "new.db", **choices)
    assert list(tmp_path.iterdir()) == []


WORDS_BESIDE_A_REQUEST: list[dict[str, Any]] = [
    {"undecryptable": "delete"},
    {"undecodable": "stop"},
    {"older_from": [SAMPLES / "lost-key.db"]},
    {"compact": True},
    {"rewrap": True},
    {"update_embedded": True},
    {"skip_hash_check": True},
    {"jobs": 2},
    {"token": "a" * 32},
    {"config": OLD, "decrypt": True},
]


@pytest.mark.parametrize("words", WORDS_BESIDE_A_REQUEST, ids=str)
def test_a_request_says_all_about_values(tmp_path: Path, words: dict[str, Any]) -> None:
    request = library.RewriteRequest(reading=library.Keyring(()), writing=library.Keyring(()), decrypt=True)
    with pytest.raises(InputError, match=f"leave {', '.join(words)} out"):
        library.rewrite(SAMPLES / "lost-key.db", tmp_path / "new.db", request, **words)
    assert list(tmp_path.iterdir()) == []


def test_one_earlier_backup_is_given_as_it_is(tmp_path: Path) -> None:
    report = library.rewrite(
        SAMPLES / "lost-key.db",
        tmp_path / "new.db",
        config=SAMPLES / "lost-key.yaml",
        undecryptable="older",
        older_from=SAMPLES / "lost-key.db",
    )
    assert report.target is not None
    with pytest.raises(library.WrongType, match="older_from is of type int"):
        library.rewrite(SAMPLES / "lost-key.db", None, config=OLD, undecryptable="older", older_from=3)  # type: ignore[arg-type]


def test_other_words_for_a_container_are_refused(tmp_path: Path) -> None:
    with pytest.raises(library.UnknownWord, match="container is 'gz', and has to be one of 'auto'"):
        library.repair(SAMPLES / "lost-key.db", tmp_path / "new.db", container="gz")
    with pytest.raises(library.UnknownWord, match="container is 'gz'"):
        library.rewrite(SAMPLES / "aescbc-cluster.db", tmp_path / "new.db", config=OLD, decrypt=True, container="gz")
    assert list(tmp_path.iterdir()) == []
