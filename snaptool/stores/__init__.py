"""Where snapshots are kept: files, and what a URL names. Read by version, created whole or not at all.

A store has four operations: look, read a range of one version, create under a condition, say whether two places are
one. What is read from one goes into a private file without a name; what is written to one was verified before the
first byte leaves. Source: docs/clouds.md.
"""
