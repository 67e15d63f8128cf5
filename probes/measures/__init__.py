"""The probes, by what is asked; no probe imports another family.

`probe` says what a probe declares of itself, `catalogue` lists all of them, `choice` says which of
them models and corpus allow, `measuring` measures them on all replicates of a model, `provenance`
says where it came from, `threads` runs what is small on one, `own` and `of_graph` make probes of
what is given. Are `classes` told apart? Do translations lie together, in `languages`? How much of
the original is left, by `fidelity`? How do states fill the `space`? Who speaks for a prediction, by
`attribution`?
"""
