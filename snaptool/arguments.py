"""What callers of the library pass, checked at its door: words of enumerations, and types.

A wrong type is a `TypeError` of ours and a wrong word a `ValueError` of ours; both say what is wanted. Without that,
a word that is not a member of an enumeration compares unequal to every member, and acts as whatever comes last.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from snaptool.errors import InputError

Word = TypeVar("Word", bound=StrEnum)
_SHOWN = 40


class WrongType(InputError, TypeError):
    """An argument of a library call has a type that is not taken. The message says which are."""


class UnknownWord(InputError, ValueError):
    """An argument of a library call is none of the words that are taken. The message lists them."""


def word_of(words: type[Word], value: object, name: str) -> Word:
    """Return the member of an enumeration for a word or a member. Raises WrongType and UnknownWord."""
    if isinstance(value, words):
        return value
    known = ", ".join(repr(word.value) for word in words)
    if not isinstance(value, str):
        raise wrong_type(name, value, f"{words.__name__} or one of {known}")
    try:
        return words(value)
    except ValueError:
        raise UnknownWord(f"{name} is {value[:_SHOWN]!r}, and has to be one of {known}") from None


def wrong_type(name: str, value: object, wanted: str) -> WrongType:
    """Make the error for an argument; its value is not shown, for it may be a key."""
    return WrongType(f"{name} is of type {type(value).__name__}, and has to be {wanted}")


def require_bool(**values: object) -> None:
    """Refuse what is not a bool: a word would count as true. Raises WrongType."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise wrong_type(name, value, "True or False")


def require_count(**values: object) -> None:
    """Refuse what is not a number from 1 on; None is taken. Raises WrongType and UnknownWord."""
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(name, value, "a number")
        if value < 1:
            raise UnknownWord(f"{name} is {value}, and has to be a number from 1 on")


def texts(name: str, value: object) -> tuple[str, ...]:
    """Return one text or several as a tuple. Raises WrongType."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise wrong_type(name, value, "a str or several")
