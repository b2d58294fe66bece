"""snaptool: rewrite etcd snapshots of Kubernetes clusters."""
