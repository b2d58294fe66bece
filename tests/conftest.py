"""Fixtures for every test: their homes are in tests/support."""

pytest_plugins = ["tests.support.etcd"]
