"""Do translations lie together?

`retrieval` and `margin_retrieval` find the translation among `neighbours`, or among those of
`all_languages`, `word_movers` by its words, `alignment_gap` says how much closer it lies than other
sentences; `pairs` is what they share.
"""
