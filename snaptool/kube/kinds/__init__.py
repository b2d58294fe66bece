"""Every kind that Kubernetes stored, decoded and printed as kubectl prints it.

`decode_object` turns a stored plaintext into plain values, `as_served` adds what an API server adds when it reads,
`json_text` and `yaml_text` print. The trees are dicts, lists, texts, numbers, truth values and None, in no particular
order: the printers sort.
"""
