"""The families of compression, what works here of each, and what of it is measured."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"\b(?:compress|probes)(?:\.[A-Za-z_]\w*)+")


@dataclass(frozen=True)
class Part:
    """A sub-family: what does it here, and what of it is not here, with the reason."""

    name: str
    calls: tuple[str, ...] = ()
    not_here: str = ""

    @property
    def names(self) -> list[str]:
        """The public names in its calls."""
        return [name for call in self.calls for name in _NAME.findall(call)]


# What is measured, by the name of the row; evaluated as it stands here.
MEMBERS = {
    "as it is": "model",
    "clusters of weights": "compress.product_quantize(model, codes=16, block=1)",
    "clusters, centres trained": "compress.product_quantize(model, codes=16, block=1, **how)",
    "hashed weights": "compress.hash_weights(model, share=0.25)",
    "hashed weights, trained": "compress.hash_weights(model, share=0.25, **how)",
    "shared layers": "compress.fuse(model, share=0.5)",
    "shared layers, trained": "compress.fuse(model, share=0.5, **how)",
    "whole layers shared, by CKA": (
        'compress.fuse(model, share=0.5, unit="layer", similarity="cka", corpus=some, tokenizer=tokenizer)'
    ),
    "random, the control": 'compress.prune(model, sparsity=0.6, criterion="random")',
    "magnitude": "compress.prune(model, sparsity=0.6)",
    "magnitude, global": 'compress.prune(model, sparsity=0.6, scope="global")',
    "LAMP": 'compress.prune(model, sparsity=0.6, criterion="lamp")',
    "lookahead": 'compress.prune(model, sparsity=0.6, criterion="lookahead")',
    "magnitude, trained": "compress.recipes.magnitude_pruning(model, tokenizer, train, sparsity=0.6, **trained)",
    "aligned weights, trained": "compress.recipes.aligned_weights(model, tokenizer, train, sparsity=0.6, **trained)",
    "self-distilled, trained": (
        "compress.recipes.self_distilled_pruning(model, tokenizer, train, sparsity=0.6, **trained)"
    ),
    "module by module, trained": (
        "compress.recipes.sparse_progressive_distillation(model, tokenizer, train, sparsity=0.6, **trained)"
    ),
    "pruned, 2 % given back": (
        "compress.restore(compress.prune(model, sparsity=0.6), model, tokenizer, some, budget=0.02)"
    ),
    "movement, trained": 'compress.prune(model, sparsity=0.6, criterion="movement", **how)',
    "first-order Taylor": 'compress.prune(model, sparsity=0.6, criterion="gradient", train=few, tokenizer=tokenizer)',
    "Fisher": 'compress.prune(model, sparsity=0.6, criterion="fisher", train=few, tokenizer=tokenizer)',
    "Optimal Brain Damage": 'compress.prune(model, sparsity=0.6, criterion="obd", train=few, tokenizer=tokenizer)',
    "Wanda": 'compress.prune(model, sparsity=0.6, criterion="wanda", train=some, tokenizer=tokenizer)',
    "SparseGPT": 'compress.prune(model, sparsity=0.6, criterion="sparsegpt", train=some, tokenizer=tokenizer)',
    "2 of 4": 'compress.prune(model, sparsity=0.5, pattern="2:4")',
    "heads": "compress.prune_heads(model, 0.5)",
    "heads, Fisher": 'compress.prune_heads(model, 0.5, importance="fisher", corpus=few, tokenizer=tokenizer)',
    "channels": "compress.prune_channels(model, 0.5)",
    "channels, Taylor": 'compress.prune_channels(model, 0.5, importance="taylor", corpus=few, tokenizer=tokenizer)',
    "layers": 'compress.drop_layers(model, 2, importance="similarity", corpus=some, tokenizer=tokenizer)',
    "layers, by removal": 'compress.drop_layers(model, 2, importance="removal", corpus=some, tokenizer=tokenizer)',
    "SNIP, from scratch": "compress.recipes.snip(untrained, tokenizer, train, sparsity=0.6, **trained)",
    "low rank": "compress.factorize(model, budget=0.5)",
    "low rank of what is given": (
        'compress.factorize(model, budget=0.5, method="activation", calibrate=some, tokenizer=tokenizer)'
    ),
    "tensor train": 'compress.factorize(model, rank=32, method="tensor_train")',
    "embeddings in factors": "compress.factorize(model, rank=32, embeddings=True)",
    "fewer layers": "compress.distill(model, layers=3, **how)",
    "narrower layers": "compress.distill(model, hidden_size=64, **how)",
    "patient": "compress.recipes.patient_distillation(model, tokenizer, train, layers=3, **trained)",
    "by contrast": "compress.recipes.codir(model, tokenizer, train, layers=3, **trained)",
    "by relations": "compress.recipes.relational_distillation(model, tokenizer, train, layers=3, **trained)",
    "a teacher that learns": "compress.recipes.meta_distillation(model, tokenizer, some, layers=3, **trained)",
    "fewer layers, near words": (
        'compress.distill(model, layers=3, replace_words=compress.NearestWords("exponential"), **how)'
    ),
    "8 bits": "compress.quantize(model, bits=8)",
    "8 bits, run by onnxruntime": 'compress.quantize(model, bits=8, backend="onnxruntime")',
    "8 bits, run by torchao": 'compress.quantize(model, bits=8, backend="torchao")',
    "4 bits, ranges clipped": 'compress.quantize(model, bits=4, ranges="percentile", percentile=99)',
    "3 bits": "compress.quantize(model, bits=3)",
    "3 bits, GPTQ": (
        'compress.quantize(model, bits=3, method="gptq", activation_bits=8, calibrate=some, tokenizer=tokenizer)'
    ),
    "3 bits, AWQ": (
        'compress.quantize(model, bits=3, method="awq", activation_bits=8, calibrate=some, tokenizer=tokenizer)'
    ),
    "4 bits in the mean, by damage": (
        'compress.quantize(model, bits=compress.allocate_bits(model, average_bits=4, damage="weights", progress=False))'
    ),
    "ternary": 'compress.quantize(model, bits=2, ranges="least_squares")',
    "ternary, trained": 'compress.quantize(model, bits=2, ranges="least_squares", noise=1.0, **how)',
    "binary": 'compress.quantize(model, bits=1, ranges="least_squares")',
    "binary, trained": 'compress.quantize(model, bits=1, ranges="least_squares", noise=1.0, **how)',
    "2 bits, Quant-Noise": "compress.quantize(model, bits=2, noise=0.1, **how)",
    "2 bits, self-distilled": (
        "compress.recipes.self_distilled_quantization(model, tokenizer, train, bits=2, **trained)"
    ),
    "codewords": "compress.product_quantize(model, codes=256, block=8)",
    "codewords, layer by layer": "compress.product_quantize(model, codes=256, block=8, **how)",
    "pruned, then 4 bits": "compress.quantize(compress.prune(model, sparsity=0.6), bits=4)",
}
_M = MEMBERS

FAMILIES: dict[str, tuple[Part, ...]] = {
    "Weight sharing": (
        Part(
            "clusters",
            (_M["clusters of weights"], _M["clusters, centres trained"]),
            "soft sharing by a mixture of Gaussians, and its Bayesian form, draw weights together by a prior over a "
            "long training; what is stored in the end is clusters, which are found here as well as they can be",
        ),
        Part(
            "learned sharing, hashing",
            (_M["hashed weights"], _M["hashed weights, trained"]),
            "GrOWL ties units by a penalty from the start of a training, Shapeshifter makes weights of one bank for "
            "all layers: both are architectures to train, not something done to a checkpoint",
        ),
        Part(
            "layers of one set of weights",
            (_M["shared layers"], 'compress.fuse(model, share=0.5, unit="layer")', _M["shared layers, trained"]),
            "Universal Transformers, recurrently stacked layers and equilibrium models are other architectures; "
            "ALBERT, whose layers share, is read and compressed as any checkpoint; attention shared where it hardly "
            "differs (Jensen-Shannon) is another rule for which layers to fuse; tied embeddings stay tied",
        ),
        Part(
            "recursive layers",
            (_M["whole layers shared, by CKA"],),
            "recursive convolutions, units with a channel shuffle and template mixing are of networks for images",
        ),
    ),
    "Pruning": (
        Part("magnitude", (_M["magnitude"], _M["magnitude, global"], _M["LAMP"], _M["lookahead"])),
        Part(
            "weight regularisation",
            (
                _M["aligned weights, trained"],
                "compress.prune(model, sparsity=0.6, weight_decay=0.01, **how)",
                _M["channels"],
            ),
            "L1 and weight elimination shrink what magnitude then takes; by the count of a schedule they would take "
            "the same number",
        ),
        Part(
            "loss sensitivity",
            (_M["movement, trained"], _M["channels, Taylor"]),
            "skeletonization is the Taylor importance of units without its absolute value; Karnin's sensitivity sums "
            "gradients times updates along a training, as movement does times weights; variance analysis needs noise "
            "in the weights of a training",
        ),
        Part(
            "second order",
            (_M["Optimal Brain Damage"], _M["SparseGPT"]),
            "Optimal Brain Surgeon with the whole inverse Hessian does not fit a model; layer by layer it is SparseGPT",
        ),
        Part(
            "first order",
            (_M["first-order Taylor"], _M["Fisher"], _M["heads, Fisher"]),
            "Piggyback learns a mask of a frozen network for each task: it stores a mask more, and no weight less",
        ),
        Part("by what is fed", (_M["Wanda"],)),
        Part(
            "structured",
            (
                _M["heads"],
                _M["channels"],
                _M["layers"],
                _M["2 of 4"],
                "compress.prune_vocabulary(model, tokenizer, train)",
            ),
            "group sparsity, variational dropout, information bottlenecks and GANs that prune are penalties of a "
            "training from scratch; their masks are what is counted here",
        ),
        Part(
            "while it is distilled",
            (
                _M["self-distilled, trained"],
                _M["module by module, trained"],
                "compress.recipes.sparse_bert(model, tokenizer, train, teacher=model, sparsity=0.6, **trained)",
            ),
        ),
        Part(
            "healed afterwards",
            (
                _M["pruned, 2 % given back"],
                "compress.finetune(student, tokenizer, some, objective=compress.ReplacedTokens(), steps=200)",
            ),
        ),
        Part(
            "search",
            (_M["layers, by removal"],),
            "genetic algorithms, annealing, particles and reinforcement learning try hundreds of masks or layer-wise "
            "shares; layers are few enough to be tried one by one, and shares of bits are found exactly",
        ),
        Part(
            "before training",
            (_M["SNIP, from scratch"],),
            "SynFlow and edge-popup need scores that flow through the weights alone, which softmax and norms do not "
            "carry; weight-agnostic networks are architectures that are searched for; a lottery ticket is the mask of "
            "a pruned model on the weights it began with, a line of your own. Of few texts, or none, are Wanda and "
            "SparseGPT, magnitude and LAMP",
        ),
    ),
    "Tensor decomposition": (
        Part(
            "low rank",
            (_M["low rank"], _M["low rank of what is given"], "compress.low_rank_lstm(lstm, rank=8)"),
        ),
        Part(
            "tensor trains",
            (_M["tensor train"], "compress.tensor_train_lstm(lstm, rank=8)"),
            "CP and Tucker are of kernels with more than two dimensions; of a matrix both are the singular value "
            "decomposition, and convolutions are taken as matrices",
        ),
        Part("embeddings", (_M["embeddings in factors"],)),
    ),
    "Knowledge distillation": (
        Part(
            "logits",
            (_M["fewer layers"], "compress.SoftLabels(temperature=2.0)"),
            "a teacher's assistant is two calls, one after the other; noisy and early-stopped teachers, and those "
            "trained without smoothed labels, are another `teacher=`",
        ),
        Part(
            "hidden layers",
            (
                _M["patient"],
                "compress.HiddenStates()",
                "compress.Attentions()",
                "compress.AttentionOutputs()",
                _M["narrower layers"],
            ),
            "flow between layers, factor transfer, activation boundaries and variational information are of feature "
            "maps of images",
        ),
        Part(
            "sequences and Transformers",
            (
                _M["fewer layers"],
                "compress.LanguageModel()",
                "compress.match_layers(model, student, some, tokenizer=tokenizer)",
            ),
            "sequence-level distillation trains on what a teacher wrote: give its texts as the corpus",
        ),
        Part(
            "ensembles, learned teachers",
            (_M["a teacher that learns"], "compress.MetaTeacher()"),
            "mean teachers, on-the-fly ensembles and GANs train several networks beside each other; a rewarded student "
            "of a policy over layers (N2N) searches architectures; variational students become sparse by a dropout "
            "that is learned from scratch",
        ),
        Part(
            "metric and contrastive",
            (
                _M["by contrast"],
                _M["by relations"],
                "compress.recipes.contrastive_distillation(model, tokenizer, train, layers=3, **trained)",
                "compress.CRD()",
                "compress.CrossCorrelation()",
            ),
        ),
        Part(
            "a judge in place of a teacher",
            ("compress.finetune(decoder, tokenizer, train, objective=compress.SimilarityReward(encoder), steps=200)",),
        ),
        Part("fewer steps of a sampler", ("compress.distill_diffusion(denoiser, data, steps=[64, 32, 16, 8, 4])",)),
        Part(
            "data",
            (
                "compress.recipes.sparse_bert(model, tokenizer, train, teacher=model, copies=2, **trained)",
                _M["fewer layers, near words"],
            ),
            "data-free distillation and distilled data sets make inputs by gradients, which words do not have",
        ),
        Part("layer fusion", (_M["shared layers"],)),
    ),
    "Quantisation": (
        Part(
            "fixed point, low precision",
            (_M["8 bits"], _M["8 bits, run by onnxruntime"], _M["8 bits, run by torchao"]),
            "half precision is `dtype` of capture and of checkpoints; stochastic rounding, loss scaling and S2FP8 are "
            "of training in few bits",
        ),
        Part(
            "ranges and clipping",
            (_M["4 bits, ranges clipped"], 'compress.quantize(model, bits=4, ranges="least_squares", group=32)'),
            "calibration by divergence and ACIQ choose the same number, where to clip, from a histogram or a normal "
            "distribution; least squares chooses it from the weights. Value-aware codes keep the few largest weights "
            "apart and whole: a format of two parts a matrix",
        ),
        Part(
            "retraining",
            (
                _M["2 bits, Quant-Noise"],
                "compress.quantize(model, bits=2, noise=1.0, **how)",
                _M["codewords, layer by layer"],
            ),
            "incremental quantisation fixes weights in parts by size, as iPQ does layer by layer; DoReFa rounds "
            "gradients too, to train in few bits",
        ),
        Part(
            "loss and Hessian aware",
            (_M["3 bits, GPTQ"], _M["3 bits, AWQ"], _M["4 bits in the mean, by damage"]),
            "HAWQ and Q-BERT share bits out by eigenvalues of the Hessian; here it is by the damage that is measured",
        ),
        Part(
            "differentiable",
            (_M["clusters, centres trained"],),
            "soft assignments (DSQ, soft-to-hard) anneal to the hard ones that are trained here",
        ),
        Part(
            "codewords in place of words, large vocabularies",
            (
                "compress.code_outputs(decoder, bits=40, train=train, tokenizer=tokenizer, steps=200)",
                "compress.finetune(decoder, tokenizer, train, objective=compress.NoiseContrast(k=25), steps=200)",
                "compress.prune_vocabulary(decoder, tokenizer, train)",
            ),
        ),
        Part("two and three values", (_M["ternary"], _M["ternary, trained"], _M["binary"], _M["binary, trained"])),
        Part(
            "combined",
            (_M["pruned, then 4 bits"], _M["2 bits, self-distilled"], "compress.save(model, folder, packed=True)"),
            "Huffman codes are not written: bytes are counted in whole bits a code, and zeros are left out",
        ),
    ),
    "Inference of language models": (
        Part(
            "loyalty",
            (
                "probes.loyalty(before, after)",
                "compress.quality(model, tokenizer, corpus)",
                "compress.footprint(model)",
            ),
        ),
        Part(
            "module replacing",
            (_M["module by module, trained"],),
        ),
        Part(
            "early exit, skipped tokens",
            ("probes.lens(states)",),
            "what leaves early differs from text to text, and so do its layers, which are compared here one by one; "
            "from which layer on a prediction stays is measured",
        ),
        Part(
            "what a search multiplies",
            ("compress.sparsify_embeddings(model, train=train, tokenizer=tokenizer, steps=200)",),
        ),
    ),
}
