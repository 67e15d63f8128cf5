"""Who in the training set speaks for a prediction, and which layer causes what a model lost?

`representers` splits predictions into `values`: it reads `rows` and finds the head at
its `minimum`. `representer_support` sums them by language, as a probe; `influence` asks what a row does
to that head.

`patching` gives a compressed model parts of its original back, at `places`, and to first order by `screening`;
`output_damage` is what its output lacks, `causes` what a verdict names, `added_bytes` what that takes, and
`projections` map states of students of another width.

`facts` asks which facts of a small graph a decoder's states say, by a read-out of words and `relations`.
"""
