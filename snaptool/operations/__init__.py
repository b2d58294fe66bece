"""What users do with snapshots: one module per intention.

Each takes opened things and typed requests, reports progress to a callback, and returns frozen results. This is the
only place where etcd's records, Kubernetes' names and the providers of encryption meet. Nothing here prints, and
nothing knows exit codes.

This package brings nothing in by itself: a command waits for the modules that it needs, and for no others.
"""
