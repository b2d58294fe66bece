"""What etcd puts in buckets."""
