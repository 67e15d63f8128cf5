"""Do translations lie together?

`retrieval` and `margin_retrieval` find the translation among `neighbours`, `alignment_gap` says how
much closer it lies than other sentences; `pairs` is what they share.
"""
