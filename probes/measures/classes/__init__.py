"""Are the classes told apart?

`class_separability`, `variability` and `snr` measure distances within and between classes,
`best_layer` says where variability is least, `linear_probe` what a classifier reads, `kernel_probe`
(on the features of `binning`) what one that knows more than lines does, `sparse_probe` (by
`l1_path`) how few features it takes, `label_names` how far the names of the classes go; `trained`
is what these share, trained on `folds`; `labels` is what all share.
"""
