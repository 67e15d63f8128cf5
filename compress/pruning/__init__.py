"""Fewer weights, heads, channels, layers or tokens.

`prune` is the verb for weights, by `criteria`, with `grafting` and `recovery`; `structure` takes
out heads and channels by their `importance`, `drop_layers` layers, `vocabulary` tokens.
"""
