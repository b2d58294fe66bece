"""A compiled module a second time, as Python runs it: laws hold both ways."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest


def uncompiled(module: ModuleType) -> ModuleType:
    """Load the source of a module that may be compiled."""
    name = f"tests.uncompiled.{module.__name__}"
    assert module.__file__ is not None
    spec = importlib.util.spec_from_file_location(name, module.__file__.split(".")[0] + ".py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def both_ways(module: ModuleType) -> pytest.MarkDecorator:
    """Run a test with the module as it is installed, and uncompiled; its argument is called `way`."""
    return pytest.mark.parametrize("way", [module, uncompiled(module)], ids=["as installed", "uncompiled"])
