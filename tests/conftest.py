"""Fixtures for every test: their homes are in tests/support."""

import signal

# A run in the background (CI, nohup) has SIGINT ignored and hands that on to every program that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.support.peers", "tests.support.etcd"]  # in this order: the second imports the first
