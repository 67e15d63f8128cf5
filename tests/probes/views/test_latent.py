"""Maps coloured by codes: which sentence has which, in the explorer, in its picture and in a saved page; messages."""

import base64

import numpy as np
import pytest

import probes
from probes.errors import InputError
from probes.views.page import contents
from probes.widgets import Explorer, LayerMap


@pytest.fixture(scope="module")
def coded():
    """Two models of sums of two planted codes in two languages, and the codes that are found of the first."""
    rng = np.random.default_rng(0)
    bits = rng.random((40, 2)) < 0.4
    x = np.tile(bits, (2, 1)) @ rng.normal(size=(2, 2, 6))
    ids, languages = np.tile(np.arange(40), 2), np.repeat(["en", "fr"], 40)
    base = probes.from_arrays(x, id=ids, language=languages, label=np.tile(bits[:, 0].astype(int), 2), name="base")
    models = {"base": base, "small": base.assign(hidden=base.hidden + 0.1)}
    return models, bits, probes.latent_features(base, k=2, refits=2, permutations=19)


def rows_of(explorer):
    """The codes as the front reads them: (language, label, prediction of each model, code; sentence)."""
    return np.frombuffer(explorer.codes, "<i2").reshape(-1, explorer.scene.n)


def test_each_shown_sentence_has_its_own_codes_whatever_their_order(coded):
    models, bits, found = coded
    explorer = Explorer(models, latent=found, colour="code 2")
    assert explorer.about["colours"] == ["label", "language", "drift", "code 1", "code 2"]
    assert explorer.about["latent"]["model"] == "base"
    np.testing.assert_array_equal(rows_of(explorer)[4:].T, found.codes)
    for code in rows_of(explorer)[4:]:  # the planted ones, up to order and complement
        assert max(np.mean(code == (np.tile(bits[:, k], 2) == side)) for k in (0, 1) for side in (0, 1)) == 1
    order = np.random.default_rng(1).permutation(80)
    shuffled = Explorer({name: reps.isel(example=order) for name, reps in models.items()}, latent=found, most=60)
    assert shuffled.scene.n < 80
    by_place = dict(zip(zip(found.id.values, found.of_language.values, strict=True), found.codes.values, strict=True))
    frame = shuffled.scene.frame
    wanted = [by_place[key] for key in zip(frame["id"], frame["language"], strict=True)]
    np.testing.assert_array_equal(rows_of(shuffled)[4:].T, wanted)


def test_sentences_without_codes_have_none_and_what_codes_tell_is_said(coded):
    models, _, _ = coded
    english = models["base"].isel(example=models["base"].language == "en")
    found = probes.latent_features(english, k=1, refits=2, permutations=19)
    explorer = LayerMap(models, latent=found, colour="code 1")
    own = rows_of(explorer)[4]
    assert set(own[:40]) == {0, 1}
    assert set(own[40:]) == {-1}
    said = explorer.about["latent"]["said"][0]
    nats, chance = (float(found[name].sel(about="label")[0]) for name in ("information", "chance"))
    assert f"label {nats:.2f} nats, by chance {chance:.2f}" in said
    assert said.startswith(f"stability {float(found.stability[0]):.2f}, by chance ")


def test_a_saved_page_and_the_picture_have_the_code(coded):
    models, _, found = coded
    explorer = Explorer(models, latent=found, colour="code 1")
    traits = contents(
        {name: getattr(explorer, name) for name in (*explorer.DATA, *explorer.STATE)}, explorer.numbers, explorer.answer
    )["traits"]
    assert (traits["colour"], traits["about"]["latent"]["names"]) == ("code 1", ["code 1", "code 2"])
    assert base64.b64decode(traits["codes"]["bytes"]) == explorer.codes
    drawn = explorer._drawn_map("small")
    assert drawn.title == "small, layer 1, by code 1"
    np.testing.assert_array_equal(drawn.codes, found.codes[:, 0])


def test_an_explorer_that_is_opened_again_has_its_codes(coded):
    models, _, found = coded
    compared = probes.compare(models, probes=["snr"], draws=5, progress=False)
    first = compared.explore(latent=found, colour="code 2")
    again = compared.explore()
    assert again.colour == "code 2"
    assert again.numbers is first.numbers
    compared.representations = {}
    assert compared.explore().about["latent"]["names"] == []


def test_what_holds_no_codes_of_these_sentences_is_refused(coded):
    models, _, found = coded
    with pytest.raises(InputError, match=r"latent: expected what probes\.latent_features returned; found ndarray"):
        Explorer(models, latent=found.codes.values)
    with pytest.raises(InputError, match=r"latent_features returned; found Dataset"):
        Explorer(models, latent=models["base"])
    elsewhere = found.assign_coords(id=("example", [f"other {i}" for i in found.id.values]))
    with pytest.raises(
        InputError, match="latent: none of the 80 shown sentences is among the 80 whose codes are given"
    ):
        Explorer(models, latent=elsewhere)
    with pytest.raises(InputError, match="colour: 'code 3' is not known; there are 'label'"):
        Explorer(models, latent=found, colour="code 3")
