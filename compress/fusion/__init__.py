"""Layers that share their weights.

`fuse` is the verb; `pairs` says which layers can share, `layer_similarity` which are alike,
`merging` what they become. `hash_weights` lets the weights of a matrix share few numbers.
"""
