"""How do the states fill the space?

`geometry` measures all of it at once: `mean_cosine`, `norm`, `participation_ratio` (with IsoScore),
`effective_rank`, `intrinsic_dimension`, `largest_feature`. `principal` and `sentences` hold what these share.

`departure` asks layer by layer where a model leaves the `dynamics` of its baseline, `depth_dynamics` how much of
its path can be predicted, with what a `residual` learns of the rest, and `depth_control` which layers to correct.
`spectrum` tells what is carried by slow and fast changes along tokens and layers, `band_gates` which it takes.
`latent_features` finds yes-or-no properties that states are sums of, by `pursuit`.
"""
