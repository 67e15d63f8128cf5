"""What value, low, high and p mean.

`draws` says which sentences are drawn, `intervals` what is made of the draws, `resampled` what of
parts of the sentences, `result` puts a probe's numbers into its labelled result, `difference`
compares two of them, `table` keeps all of them as data.
"""
