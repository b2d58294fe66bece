"""What Kubernetes puts in keys and plain values.

`keys` maps registry keys to resources and back, `names` judges names in configurations, `objects` says what a plaintext
is, `kinds` decodes and prints it, `consequences` says what losing an object means. All take bytes, keys or names and
return values; none knows how values are encrypted.
"""
