"""Representations that are mostly zeros, and what searches them.

`sparsify_embeddings` is the verb; `sparse_embeddings` gives the vectors, `index` finds by them,
`retrieval_cost` says what that finds and costs.
"""
