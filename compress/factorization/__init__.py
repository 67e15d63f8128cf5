"""Matrices in factors.

`factorize` is the verb; `factors` holds the matrices and what stands in their place, `low_rank` and
`tensor_train` its two forms, `budget` and `moments` what decides on ranks; `recurrent` LSTMs in
factors.
"""
