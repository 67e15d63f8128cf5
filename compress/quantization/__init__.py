"""Fewer bits a weight, or bits in place of words.

`quantize`, `codebooks` (product quantisation) and `deploy` (other packages' int8) are the verbs;
`backends` says which models those packages take;
`quantizers` rounds a tensor (`scaled_signs` to two or three values), `weights` and `ranges` are
what of a model is rounded, `noise` trains with it; `clusters` gives single weights few values;
`bit_damage`, `allocate_bits` and `quantization_error` say what it costs.
`code_outputs` puts codewords in place of the words of an output layer, `codewords` says which, and
`code_accuracy` how they are read.
"""
