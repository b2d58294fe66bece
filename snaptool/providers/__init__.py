"""Encryption at rest: how kube-apiserver seals values before etcd sees them, and opens them again.

Theory of operation. A stored value is a prefix that names a provider and a key, and a payload. A *provider* is one
algorithm with its keys; it sees payload and context, which is the complete etcd key. A *chain* is the ordered
providers of a resource: all of them read, the first one writes. A *keyring* holds the chains that a configuration
gives to resources. KMS providers wrap the keys of values with a key of their own that lives elsewhere; what was
wrapped is unwrapped before the work begins.

Knows no file, no etcd and no clock. The KMS socket is the one exception, in `kms_grpc`, which nothing here imports.
"""
