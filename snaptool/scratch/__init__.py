"""A real etcd on a copy."""
