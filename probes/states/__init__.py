"""How hidden states come out: text and model -> Representations.

`capture` runs a corpus once, `tokens` makes the batches, `layers` says which states are taken,
`pooling` makes one vector a text, `units` says which tokens are a text's own and which make a word,
`ragged` reads their states in pieces, `movers` and `frequencies` pool them, `running` says where
and how, `store` keeps them on disk, `texts` leaves texts where they lie, `outliers` leaves the
largest features out; `by_token` is what language models say of each token and `lenses` what their
layers would, `spoken` a sentence token by token; `representations` is what comes out, `predictions`
what of it a head says, and `depth` which layers of two models are compared.
"""
