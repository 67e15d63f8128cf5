"""Who in the training set speaks for a prediction?

`representers` splits predictions into `values`: it reads `rows` and finds the head at
its `minimum`. `representer_support` sums them by language, as a probe; `influence` asks what a row does
to that head.
"""
