"""Fixtures for every test: their homes are in tests/support."""

import os
import signal

from tests.support.engine import remove_stale

remove_stale()  # before anything imports the engine: Python prefers a compiled module, however old it is

# As snaptool sets it; tests may import gRPC first, and commands that run in their process fork workers.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

# Nobody's terminal says here how long lines may be; tests of that say it themselves.
os.environ.pop("COLUMNS", None)

# A run in the background (CI, nohup) has SIGINT ignored and hands that on to every program that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.support.peers", "tests.support.etcd"]  # in this order: the second imports the first
