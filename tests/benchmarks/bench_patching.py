"""What patching of a 12-layer encoder takes, over one forward pass: tokens that blocks read, and seconds.

The estimate to first order takes a backward pass beside them, to what modules give and not to weights, and measures 8
modules exactly on 8 texts: multiplications count all of it. Of blocks each has to be run itself, so that they take
(layers + 1) / 2 passes beside the two of the models, one more than states; a comparison takes both from the same two.
"""

from collections.abc import Callable, Iterator

from common import Row, interleaved, run  # first: it sets the environment

# isort: split
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

import compress
import probes
from probes.measures.attribution.patching import patched_together
from probes.states.resumed import blocks_of
from probes.states.tokens import batches_of

LAYERS, DRAWS = 12, 50


def rows(quick: bool) -> Iterator[Row]:
    texts, rounds = (120, 1) if quick else (360, 5)
    _, tokenizer = probes.load_checkpoint("bundled")
    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "num_hidden_layers": LAYERS}
    config = transformers.BertConfig(vocab_size=len(tokenizer), num_labels=5, **sizes)
    model = transformers.BertForSequenceClassification(config).eval()
    other = compress.prune(model, sparsity=0.5)
    corpus = probes.load_corpus("bundled", split="test", languages=["en"]).select(range(texts))
    prepared = [inputs for _, inputs in batches_of(model, tokenizer, corpus, "model", device="cpu")[1]()]

    @torch.inference_mode()
    def bare() -> None:
        for inputs in prepared:
            model(**inputs)

    def patched(**how: object) -> None:
        shared = {"draws": DRAWS, "device": "cpu", "progress": False}
        if isinstance(how["at"], tuple):
            patched_together(model, other, tokenizer, corpus, names=("model", "other"), **shared, **how)
        else:
            probes.patching(model, other, tokenizer, corpus, **shared, **how)

    def multiplications(run: Callable[[], None]) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    tasks = {
        "all layers by their states": {"at": "layers"},
        "all blocks by their weights": {"at": "weights"},
        "both, as a comparison does": {"at": ("weights", "layers")},
        "24 modules one by one": {"at": "modules"},
        "24 modules to first order": {"at": "modules", "exact": False},
    }
    for what, how in tasks.items():
        ran = [0]

        def count(_module: object, args: tuple, kwargs: dict, ran: list[int] = ran) -> None:
            states = args[0] if args else kwargs["hidden_states"]
            ran[0] += states.shape[0] * states.shape[1]

        attentions = [block.attention for one in (model, other) for block in blocks_of(one)]
        hooks = [module.register_forward_pre_hook(count, with_kwargs=True) for module in attentions]
        patched(**how)
        for hook in hooks:
            hook.remove()
        passes = ran[0] / LAYERS / sum(inputs["input_ids"].numel() for inputs in prepared)
        product = multiplications(lambda how=how: patched(**how)) / multiplications(bare)
        seconds = interleaved({"bare": bare, "ours": lambda how=how: patched(**how)}, rounds)
        note = (
            f"{passes:.2f} forward passes by tokens that blocks read, {product:.2f} by multiplications, "
            f"{seconds['ours'] / seconds['bare']:.2f} by time"
        )
        yield Row(
            f"{what}, {texts} texts, {LAYERS} layers", seconds["ours"], seconds["bare"], "one forward pass", note=note
        )


if __name__ == "__main__":
    run(rows)
