"""What Kubernetes puts in keys and plain values."""
