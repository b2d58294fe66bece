"""Fixtures for every test: their homes are in tests/support."""

pytest_plugins = ["tests.support.peers", "tests.support.etcd"]  # in this order: the second imports the first
