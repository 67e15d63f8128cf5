"""What is measured: a checkpoint, its formats and its parts.

`found` finds out what a checkpoint is and `declared` whether its weights bear that out, `checked`
says it in a table before they are read, `checkpoint` loads it safely, `bundled` the names of those
that come with the package, `adapters` merges what belongs onto a model, `heads` says which head is
not in the weights, `named` what models are called, `fingerprint` gives one hash for one function,
`facts` says what a model is and whether it fits its tokenizer, `parts` where the parts of an
architecture are, `blocks` finds, counts and slices them in a model, and `formats` holds what a
configuration of ours says and transformers cannot read.
"""
