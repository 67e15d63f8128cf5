"""Are the classes told apart?

`class_separability`, `variability` and `snr` measure distances within and between classes,
`best_layer` says where variability is least, `linear_probe` what a classifier reads, trained on
`folds`; `labels` is what they share.
"""
