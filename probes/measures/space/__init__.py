"""How do the states fill the space?

`geometry` measures all of it at once: `mean_cosine`, `norm`, `participation_ratio` (with IsoScore),
`effective_rank`, `intrinsic_dimension`, `largest_feature`. `principal` and `sentences` hold what these share.
"""
