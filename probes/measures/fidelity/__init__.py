"""How much of the original is left?

`drift` compares states one by one, `similarity` as a whole, `module_error` the outputs of modules,
`loyalty` predictions, `next_token` those of language models token by token and `lens` layer by
layer, `tokens` one sentence, `off_diagonal_correlation` feature with feature; `accuracy` says how
many are right. Measures of `similarity` are files of their own (`cka`, `procrustes`, `canonical`,
`rsa`, `neighbour_overlap`, `mutual_information`), over what `layer_pairs` reads.
"""
