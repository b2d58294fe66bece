# What the engine uses of Cython's pure Python mode, as mypy has to see it: numbers are ints.

import builtins
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, overload

_T = TypeVar("_T")

bint: TypeAlias = builtins.bool
int: TypeAlias = builtins.int
longlong: TypeAlias = builtins.int
p_void: TypeAlias = object
Py_ssize_t: TypeAlias = builtins.int
size_t: TypeAlias = builtins.int
uchar: TypeAlias = builtins.int
uint: TypeAlias = builtins.int
ulonglong: TypeAlias = builtins.int
ushort: TypeAlias = builtins.int
void: TypeAlias = None

class _Unchanged:
    def __call__(self, thing: _T) -> _T: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...

compiled: builtins.bool
cclass: _Unchanged
cfunc: _Unchanged
ccall: _Unchanged
final: _Unchanged
gil: _Unchanged
inline: _Unchanged
nogil: _Unchanged

def exceptval(*_: object, check: builtins.bool = ...) -> Callable[[_T], _T]: ...
def boundscheck(on: builtins.bool) -> Callable[[_T], _T]: ...
def declare(kind: object, value: _T) -> _T: ...
@overload
def cast(kind: type[builtins.int], value: object) -> builtins.int: ...
@overload
def cast(kind: object, value: object) -> Any: ...  # a function by its address
def address(value: object) -> Any: ...
