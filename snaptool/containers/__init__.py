"""What platforms put around a snapshot, and how it is taken out: by content, in bounds, into a file without a name."""
