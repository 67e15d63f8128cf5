"""What is shown in the browser: small comparisons that are made in a kernel, or here for a saved page."""

from functools import cache

import numpy as np

import compress
import probes
from probes.widgets import Explorer

LANGUAGES = ["en", "fr", "ar"]
HOSTILE = (
    "<script>window.hacked = 1</script>",
    '<img src="http://127.0.0.1:9/x" onerror="window.hacked = 1">',
    "</script><script>window.hacked = 1</script>",
    '"><svg onload="window.hacked = 1">',
    "${window.hacked = 1} {{window.hacked = 1}} &lt;b&gt; \u2028 \x00 😀",
)
ARABIC = "كيف حالك اليوم؟"


@cache
def bundled(of_a_class: int = 7) -> probes.Comparison:
    """The bundled model, a pruned copy, and one that ends after three layers, on a few sentences of every class."""
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", split="test", languages=LANGUAGES)
    table = corpus.to_pandas()
    english = table[table["language"] == "en"]
    ids = english.groupby("label").head(of_a_class)["id"]
    corpus = corpus.select(np.flatnonzero(table["id"].isin(ids)))
    models = {"base": model, "pruned": compress.prune(model, sparsity=0.6)}
    reps = {name: probes.capture(m, tokenizer, corpus, progress=False) for name, m in models.items()}
    reps["short"] = reps["base"].isel(layer=slice(0, 4))
    return probes.compare(reps, pivot="en", probes=["retrieval", "snr", "cosine_to_baseline", "accuracy"], draws=20)


@cache
def decoders() -> probes.Comparison:
    """The bundled decoder and one of 2 bits, on twelve sentences in English, Arabic and Chinese."""
    model, tokenizer = probes.load_checkpoint("bundled-decoder")
    corpus = probes.load_corpus("bundled", split="dev", languages=["en", "ar", "zh"])
    corpus = corpus.select(np.flatnonzero(np.isin(corpus["id"][:], sorted(set(corpus["id"][:]))[:12])))
    models = {"base": model, "w2": compress.quantize(model, bits=2, group=32, activation_bits=None)}
    how = {"tokenizer": tokenizer, "probes": ["next_token", "drift"], "draws": 10, "timing": False, "progress": False}
    return probes.compare(models, corpus, **how)


def arrays(layers=3, rows=30, width=8, languages=1, seed=0, **given):
    """Random states; rows of the same id in several languages."""
    rng = np.random.default_rng(seed)
    ids = np.tile(np.arange(rows // languages), languages)
    of = np.repeat([f"l{i}" for i in range(languages)], rows // languages)
    return probes.from_arrays(rng.normal(size=(layers, len(ids), width)), id=ids, language=of, **given)


def caused() -> probes.Comparison:
    """Two models, of one of which is known what its layers give back, and the modules of one of them."""
    reps = {name: arrays(rows=40, languages=2, seed=i) for i, name in enumerate(("base", "other"))}
    made = probes.compare(reps, pivot="l0", probes=["retrieval"], draws=10)
    gains = [(1, "", 0.02), (2, "", 0.1), (2, "attention", 0.01), (2, "feed-forward", 0.09), (3, "", -0.03)]
    about = {"measure": "retrieval", "language": "pooled", "bytes": 5_000, "damage": 0.12}
    made.provenance["causes"] = {
        "other": [
            {**about, "layer": layer, "module": module, "gain": gain, "low": gain - 0.04, "high": gain + 0.04}
            | {"named": gain > 0.04}
            for layer, module, gain in gains
        ]
    }
    return made


def hostile() -> Explorer:
    """Texts, labels, ids, languages and a model's name that would be harmful if they were read as HTML."""
    texts = [*HOSTILE, ARABIC, "", "plain"]
    names = [*HOSTILE[:3], *"abcde"]
    x = np.random.default_rng(0).normal(size=(2, len(texts), 4))
    reps = probes.from_arrays(x, text=texts, label=names, id=names, language=[*HOSTILE[:2], *["ar"] * 6])
    return Explorer({HOSTILE[0]: reps, HOSTILE[1]: reps})


def one_model() -> Explorer:
    """One model, one language, labels."""
    reps = arrays(rows=40, label=np.arange(40) % 2)
    return probes.compare({"only": reps}, probes=["snr"], draws=10).explore()


def no_labels() -> Explorer:
    """Two models in two languages, no labels."""
    reps = {name: arrays(rows=40, languages=2, seed=i) for i, name in enumerate(("base", "other"))}
    return probes.compare(reps, pivot="l0", probes=["retrieval"], draws=10).explore()


def no_pivot() -> Explorer:
    """Two models in two languages and nothing that says what belongs together."""
    reps = {name: arrays(rows=40, languages=2, seed=i, label=np.arange(40) % 2) for i, name in enumerate(("base", "b"))}
    return probes.compare(reps, probes=["snr"], draws=10).explore()


def three_sentences() -> Explorer:
    """Two models, three sentences."""
    return Explorer({"base": arrays(rows=3), "other": arrays(rows=3, seed=1)})


def one_layer() -> Explorer:
    """One layer, one model; one sentence twice."""
    return Explorer(arrays(layers=1, rows=6, languages=2))


def sixty_classes() -> Explorer:
    """More classes than colours."""
    rows = 600
    return Explorer({"base": arrays(rows=rows, label=[f"class {i % 60}" for i in range(rows)])})


def empty_texts() -> Explorer:
    """Texts of which some are empty."""
    return Explorer({"base": arrays(rows=20, text=["", "a text"] * 10)})


CODES = """
    eng_Latn fra_Latn deu_Latn spa_Latn ita_Latn por_Latn nld_Latn rus_Cyrl bul_Cyrl ukr_Cyrl pol_Latn ell_Grek
    tur_Latn arb_Arab heb_Hebr hin_Deva urd_Arab tha_Thai vie_Latn zho_Hans jpn_Jpan kor_Hang swh_Latn fin_Latn
    zho_Hant ces_Latn dan_Latn swe_Latn ron_Latn hun_Latn srp_Cyrl mkd_Cyrl pes_Arab ben_Beng tam_Taml tel_Telu
    kat_Geor hye_Armn amh_Ethi khm_Khmr mya_Mymr lao_Laoo sin_Sinh mal_Mlym kan_Knda guj_Gujr pan_Guru mar_Deva
    npi_Deva uzn_Latn kaz_Cyrl kir_Cyrl azj_Latn est_Latn lit_Latn lvs_Latn isl_Latn gle_Latn eus_Latn xho_Latn
"""  # of many languages, in the order in which they are taken


def many(languages: int, models: int = 2, sentences: int = 8) -> Explorer:
    """Many languages, of which each model loses another, with predictions that differ here and there."""
    rng = np.random.default_rng(0)
    codes = CODES.split()[:languages]
    meaning = rng.normal(size=(sentences, 12))
    reps = {}
    for m in range(models):
        noise = np.where(np.arange(languages) == m + 1, 4.0, 0.05 if m else 0.02)
        hidden = np.concatenate([meaning + level * rng.normal(size=meaning.shape) for level in noise])
        reps["base" if not m else f"model {m}"] = probes.from_arrays(
            np.stack([hidden, hidden + 0.1 * rng.normal(size=hidden.shape)]),
            id=np.tile(np.arange(sentences), languages),
            language=np.repeat(codes, sentences),
            label=np.tile([f"topic {i % 3}" for i in range(sentences)], languages),
            text=[f"sentence {i} of {code}" for code in codes for i in range(sentences)],
        )
    return Explorer(reps)


def sampled() -> Explorer:
    """More sentences than are shown."""
    return Explorer({"base": arrays(rows=400)}, most=100)


def saved_table() -> Explorer:
    """A comparison without its Representations."""
    comparison = bundled()
    return Explorer(probes.Comparison(comparison.table, comparison.provenance, comparison.draws, {}))


DEGENERATE = {
    f.__name__: f
    for f in (
        one_model,
        no_labels,
        no_pivot,
        three_sentences,
        one_layer,
        sixty_classes,
        empty_texts,
        sampled,
        saved_table,
    )
}
