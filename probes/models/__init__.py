"""What is measured: a checkpoint, its formats and its parts.

`checkpoint` loads one safely, `fingerprint` gives one hash for one function, `facts` says what a
model is and whether it fits its tokenizer, `parts` where the parts of an architecture are, `blocks`
finds, counts and slices them in a model, and `formats` holds what a configuration of ours says and
transformers cannot read.
"""
