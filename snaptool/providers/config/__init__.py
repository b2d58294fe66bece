"""EncryptionConfiguration files: read, checked and refused exactly as kube-apiserver reads, checks and refuses them.

`decode` makes typed values of a text, `rules` checks them, `model` is what an accepted configuration says, `advice`
what is odd about one, and `fresh` writes new ones. `held` finds those that other files hold, `recognise` says what a
file is that holds none, and `explain` why a text is refused. The newest rules are the default; `strict=False` are those
of 1.13 to 1.30, which overlooked unknown and repeated fields.

No message holds a secret, or a text that could be one. Texts come in; no file is opened here.
"""
