"""The probes against brute force on the states of a real pretrained checkpoint and real text."""

import brute_force
import numpy as np
import pytest

import probes

pytestmark = [pytest.mark.pretrained, pytest.mark.shared_data]
LANGUAGES = ["eng_Latn", "fra_Latn", "arb_Arab"]


@pytest.fixture(scope="module")
def reps(pretrained, shared_data):
    model, tokenizer = probes.load_checkpoint(pretrained)
    corpus = probes.load_corpus(shared_data / "sib200.test.parquet", languages=LANGUAGES)
    # Sorted by label: every fourth id has all classes.
    keep = set(sorted(set(corpus["id"]))[::4])
    return probes.capture(
        model, tokenizer, corpus.filter(lambda row: row["id"] in keep), max_length=512, progress=False
    )


@pytest.mark.filterwarnings("ignore:.*more than half of the distance")
@pytest.mark.filterwarnings("ignore:.*fewer than")
@pytest.mark.parametrize("probe", [probes.class_separability, probes.variability, probes.snr])
def test_label_probes_equal_brute_force_in_float64(reps, probe):
    out, expected = probe(reps, fewest=2), getattr(brute_force, probe.__name__)
    for layer in (0, 3, 6):
        for language in [*LANGUAGES, "pooled"]:
            rows = (reps.language.values == language) | (language == "pooled")
            ids = () if probe is probes.variability else (reps.id.values[rows],)
            wanted = expected(reps.hidden[layer].values[rows], reps.label.values[rows], *ids)
            assert out.value.sel(layer=layer, language=language).item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("probe", [probes.retrieval, probes.margin_retrieval, probes.alignment_gap])
def test_alignment_probes_equal_brute_force_in_float64(reps, probe):
    out, expected = probe(reps, pivot="eng_Latn"), getattr(brute_force, probe.__name__)
    by_language = {k: reps.isel(example=reps.language.values == k).sortby("id") for k in LANGUAGES}
    for layer in (0, 3, 6):
        for language in LANGUAGES[1:]:
            x, y = (by_language[k].hidden[layer].values for k in (language, "eng_Latn"))
            assert out.value.sel(layer=layer, language=language).item() == pytest.approx(expected(x, y), rel=1e-9)


def test_french_lies_closer_to_english_than_arabic_does(reps):
    # The checkpoint was trained on English; French shares its script and many words.
    value = probes.retrieval(reps, pivot="eng_Latn").value.sel(layer=6)
    assert value.sel(language="fra_Latn") > value.sel(language="arb_Arab") + 0.2


@pytest.mark.filterwarnings("ignore:.*fewer than")
def test_topics_are_real_and_shuffled_topics_are_not(reps):
    english = reps.isel(example=reps.language.values == "eng_Latn")
    shuffled = english.assign_coords(label=("example", np.random.default_rng(0).permutation(english.label.values)))
    real, null = (probes.snr(r).sel(layer=6, language="pooled") for r in (english, shuffled))
    assert real.low > 1
    assert null.low <= 1
