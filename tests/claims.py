"""What the tutorials say of tables and figures, and the numbers behind it: a text, and what must be true.

Run by tests/browser/test_tutorials.py in the notebook itself, after its cells and those of its solutions.
"""

from __future__ import annotations

import re

import nbformat

# What the expressions share.
PRELUDE = """
def at(comparison, model, probe, layer=-1, language="pooled", column="value"):
    rows = comparison.table
    rows = rows[(rows["model"] == model) & (rows["probe"] == probe) & (rows["language"] == language)]
    return float(rows[rows["layer"] == layer][column].iloc[0])


def gaps(comparison, model, probe, layer=-1):
    rows = comparison.table
    rows = rows[(rows["model"] == model) & (rows["probe"] == probe) & (rows["layer"] == layer)]
    return rows[rows["language"] != "pooled"].set_index("language")["difference"].astype(float)


def dots(comparison, model, probe):
    rows = comparison.table.assign(p=comparison.marks())
    rows = rows[(rows["model"] == model) & (rows["probe"] == probe) & (rows["p"] < 0.05)]
    return sorted(set(zip(rows["language"], rows["layer"])))


def band(comparison, model, probe, layer, language="pooled"):
    ends = (at(comparison, model, probe, layer, language, x) for x in ("low", "high"))
    low, high = ends
    return high - low
"""
CLAIMS: dict[str, list[tuple[str, str]]] = {
    "0_five_minutes": [
        (
            "The pruned model lost accuracy in all eight languages: no bar reaches the grey band",
            "(comparison.verdict(judge=['accuracy']).languages['state'] == 'lost').all()",
        ),
        (
            "Chinese is at the top with about 32 points, Hindi at the bottom with about 13",
            "(lambda g: (g.idxmin(), g.idxmax(), round(100 * g.min()), round(100 * g.max())))"
            "(gaps(comparison, 'pruned', 'accuracy')) == ('zh', 'hi', -32, -13)",
        ),
        ("for 48 % of the sentences only", "round(at(comparison, 'original', 'accuracy', -1, 'hi'), 2) == 0.48"),
        (
            "retrieval *rose*",
            "at(comparison, 'pruned', 'retrieval', 6, column='difference_low') > 0"
            " and 'retrieval rose while accuracy fell' in"
            " ' '.join(str(comparison.verdict(judge=['accuracy'])).split())",
        ),
    ],
    "1_compare_two_checkpoints": [
        (
            "the class separability of the original is 0.236 and that of the pruned model 0.163",
            "[round(at(comparison, m, 'class_separability', 6), 3) for m in ('base', 'pruned')] == [0.236, 0.163]",
        ),
        (
            "from 0.745 to 0.730",
            "[round(at(comparison, m, 'accuracy'), 3) for m in ('base', 'pruned')] == [0.745, 0.730]",
        ),
        (
            "both curves start at the same point",
            "at(comparison, 'base', 'retrieval', 0) == at(comparison, 'pruned', 'retrieval', 0)",
        ),
        (
            "it is best at layer 2, at 0.94, and falls to 0.70 at layer 6",
            "max(range(7), key=lambda layer: at(comparison, 'base', 'retrieval', layer)) == 2"
            " and [round(at(comparison, 'base', 'retrieval', x), 2) for x in (2, 6)] == [0.94, 0.70]",
        ),
        ("finds 0.86 of the translations", "round(at(comparison, 'pruned', 'retrieval', 6), 2) == 0.86"),
        (
            "Up to layer 3 there is no dot at all. In layers 5 and 6 every language gains, Hindi most, by 0.19",
            "min(layer for _, layer in dots(comparison, 'pruned', 'retrieval')) > 3"
            " and all((gaps(comparison, 'pruned', 'retrieval', x).dropna() > 0).all() for x in (5, 6))"
            " and gaps(comparison, 'pruned', 'retrieval', 6).idxmax() == 'hi'"
            " and round(gaps(comparison, 'pruned', 'retrieval', 6).max(), 2) == 0.19",
        ),
        (
            "Red in every language, and more from layer to layer; English, whose labels the model was fine-tuned on, "
            "loses most, 0.16",
            "(gaps(comparison, 'pruned', 'class_separability', 6) < 0).all()"
            " and all(at(comparison, 'pruned', 'class_separability', x, column='difference')"
            " > at(comparison, 'pruned', 'class_separability', x + 1, column='difference') for x in range(6))"
            " and gaps(comparison, 'pruned', 'class_separability', 6).idxmin() == 'en'"
            " and round(gaps(comparison, 'pruned', 'class_separability', 6).min(), 2) == -0.16",
        ),
        (
            "it is right for 17 % of the sentences, which is chance among six topics. Retrieval at layer 6 is 0.94",
            "[round(at(four, '90%', p, x), 2) for p, x in (('accuracy', -1), ('retrieval', 6))] == [0.17, 0.94]",
        ),
        ("It is 1.000 to three digits at every layer", "(abs(by_chance - 1) < 0.0005).all()"),
        (
            "makes bands about three times as wide",
            "2 < band(less, 'base', 'retrieval', 6) / band(comparison, 'base', 'retrieval', 6) < 4",
        ),
        (
            "There are fewer dots",
            "len(dots(less, 'pruned', 'retrieval')) < len(dots(comparison, 'pruned', 'retrieval'))",
        ),
    ],
    "2_what_compression_breaks": [
        (
            "The student is as good as the original in English, and worse in every other language, by 3 points in "
            "German to 9 in Russian",
            "(lambda g: g['en'] >= 0 and (g.drop('en') < 0).all() and g.drop('en').idxmax() == 'de'"
            " and g.idxmin() == 'ru' and -0.05 < g['de'] and -0.11 < g['ru'] < -0.06)"
            "(gaps(comparison, 'student', 'accuracy'))",
        ),
        ("The pruned model is worse everywhere", "(gaps(comparison, 'pruned', 'accuracy') < -0.1).all()"),
        (
            "The model of three bits lies on the original",
            "(abs(gaps(comparison, 'quantised', 'accuracy')) < 0.01).all()",
        ),
        (
            "says what the original says for 98 sentences in a hundred, the student for 83, the pruned model for 55",
            "[abs(100 * at(comparison, m, 'label_loyalty') - x) < 2 for m, x in"
            " (('quantised', 98), ('student', 83), ('pruned', 55))] == [True] * 3",
        ),
        (
            "retrieval is best at layer 2 and falls to 0.70 at the last layer",
            "max(range(7), key=lambda layer: at(comparison, 'original', 'retrieval', layer)) == 2"
            " and round(at(comparison, 'original', 'retrieval', 6), 2) == 0.70",
        ),
        ("The pruned model ends at 0.95", "round(at(comparison, 'pruned', 'retrieval', 6), 2) == 0.95"),
        (
            "The student ends below the original, at 0.58",
            "abs(at(comparison, 'student', 'retrieval', 2) - 0.58) < 0.03",
        ),
        (
            "The student's last layer is most like the last one of its teacher (0.93), and its first most like layer 3",
            "(lambda t: t.loc[2].idxmax() == 6 and t.loc[1].idxmax() == 3 and abs(t.loc[2, 6] - 0.93) < 0.02)"
            "(comparison.table.query(\"probe == 'cka' and model == 'student' and language == 'pooled'\")"
            ".pivot(index='layer', columns='other_layer', values='value'))",
        ),
        (
            "It grows from layer to layer: 1 at the embeddings, which pruning leaves alone, 0.93 at layer 3 and 0.79",
            "[round(at(comparison, 'pruned', 'cosine_to_baseline', x), 2) for x in (0, 3, 6)] == [1.0, 0.93, 0.79]",
        ),
        (
            "The student loses most in Russian, Chinese and Arabic",
            "set(lost['student'].nsmallest(3).index) == {'ru', 'zh', 'ar'}",
        ),
        (
            "The pruned model loses most in Chinese and Spanish, and least in Hindi",
            "lost['pruned'].nsmallest(2).index.tolist() == ['zh', 'es'] and lost['pruned'].idxmax() == 'hi'",
        ),
        (
            "Russian gains most, by about 9 points, then Chinese and Arabic by about 4",
            "gained.idxmax() == 'ru' and set(gained.nlargest(3).index) == {'ru', 'zh', 'ar'} and gained['ru'] > 0.05",
        ),
        ("English gains nothing", "gained['en'] < 0.01"),
        ("no loss is larger than a point", "lost['quantised'].min() > -0.01"),
        (
            "Already at 8 bits",
            "(lambda r: (r['p_adjusted'] < 0.05).any() and r['difference'].abs().max() < 0.0002)"
            "(bits.table.query(\"model == '8 bits' and probe == 'class_separability' and language == 'pooled'\"))",
        ),
        ("by 0.12, half of it", "round(at(bits, '2 bits', 'class_separability', 6, column='difference'), 2) == -0.12"),
        ("by 7 points", "round(at(bits, '2 bits', 'accuracy', column='difference'), 2) == -0.07"),
    ],
    "3_representer_points": [
        ("A correlation of 1.0000 with the logits of the model", "values.certificate.correlation_test > 0.99995"),
        ("the same class for every one of them", "values.certificate.agreement == 1"),
        (
            "English training sentences give 0.2 to 0.3 of a mean logit of 5.4 to 7.3",
            "net['en'].between(0.2, 0.3).all() and net.sum(axis=1).between(5.35, 7.35).all()",
        ),
        (
            "less than a fifth of one in another language",
            "(lambda a: a['en'] < a.drop('en').min() / 5)"
            "(pd.Series(np.abs(values.alpha).sum(axis=1)).groupby(values.train['language'].to_numpy()).mean())",
        ),
        (
            "The same class for nine sentences in ten and more, English for all",
            "compared['same class'].mean() > 0.9 and compared['same class'][(values.test['language'].to_numpy()[rows]"
            " == 'en')].all()",
        ),
        (
            "a correlation of 0.6 to 0.75, and values about a tenth quieter",
            "compared.groupby(values.test['language'].to_numpy()[rows])['correlation'].mean().between(0.59, 0.755)"
            ".all()"
            " and abs(compared['size'].mean() - 0.9) < 0.03",
        ),
        (
            "the correlation is 0.73 to 0.75 in all four languages",
            "compared[compared['same class']].groupby(values.test['language'].to_numpy()[rows][compared['same class']])"
            "['correlation'].mean().between(0.72, 0.755).all()",
        ),
        ("Several times as many of the wrong labels in the first fifth", "np.isin(wrong, first_fifth).mean() > 0.4"),
        ("stays above 0.99", "without.certificate.correlation_test > 0.99"),
    ],
    "4_choosing_layers": [
        (
            "In English ν falls from layer to layer, to 0.25 at the last",
            "(lambda x: (np.diff(x) < 0).all() and round(float(x[-1]), 2) == 0.25)(nu.value.sel(language='en').values)",
        ),
        (
            "it is as good as flat from layer 4 on",
            "float(np.ptp(nu.value.sel(language='pooled', layer=[4, 5, 6]).values)) < 0.03",
        ),
        ("In Chinese it is lowest at the *first* layers", "int(nu.value.sel(language='zh').values.argmin()) in (0, 1)"),
        (
            "English: layer 6 in every draw. All languages pooled: layer 6 in three draws of four",
            "float(choice.value.sel(layer=6, language='en')) == 1"
            " and 0.65 < float(choice.value.sel(layer=6, language='pooled')) < 0.85",
        ),
        (
            "Where ν is large, in the first layers, the classifier is worst",
            "table['linear_probe'].idxmin() in (0, 1) and table['variability'].idxmax() == 0",
        ),
        ("Chinese: no layer has half of the draws", "float(choice.value.sel(language='zh').max()) < 0.5"),
        (
            "For all languages pooled and for English it is layer 6 again; Chinese now has layer 6 too",
            "[int(best_of_first[x]) for x in ('pooled', 'en', 'zh')] == [6, 6, 6]",
        ),
        (
            "layer 4 has three draws of four",
            "0.65 < float(shares.sel(layer=4, language='pooled')) < 0.85"
            " and float(shares.sel(layer=6, language='en')) > 0.95",
        ),
    ],
    "5_your_own_checkpoint": [
        (
            "rows sorted by label, labels that can be read off the length of a text, sentences twice, ids that a "
            "language lacks. Here each is done to the sentences above, and found",
            "[text in warned[name] for name, text in (('sorted', 'rows sorted by label'), ('length', 'label readable"
            " from text length'), ('twice', 'duplicated texts'), ('lacking', 'ids missing in a language'))]"
            " == [True] * 4",
        ),
        (
            "each layer moved farther than the one before it",
            "all(at(moved_on, 'later', 'cosine_to_baseline', x) > at(moved_on, 'later', 'cosine_to_baseline', x + 1)"
            " for x in range(6)) and at(moved_on, 'later', 'cosine_to_baseline', 0) > 0.9999",
        ),
        ("its interval is several times as wide", "3 * moved < wide"),
        (
            "so that the explorer has its maps and sentences",
            "list(again.representations) == list(comparison.representations)",
        ),
    ],
    "6_reading_error_bars": [
        (
            "several times as well",
            "np.std(unpaired) > 2 * np.std(paired)",
        ),
        ("About twice as wide", "1.5 < width['a quarter'] / width['all'] < 2.7"),
        (
            "`between` is the standard deviation over the trainings",
            "(lambda found: abs(found.std(ddof=1) - of_three['between'][6]) < 1e-6)(np.array([float(probes.snr("
            "probes.capture(one, tokenizer, test, progress=False)).value.sel(layer=6, language='pooled'))"
            " for one in replicates]))",
        ),
        (
            "it grows from layer to layer, and is small beside the bars of the value, which are more than ten times as",
            "of_three['between'].is_monotonic_increasing"
            " and (of_three['high'] - of_three['low'] > 10 * of_three['between']).all()",
        ),
    ],
    "8_which_layer_is_to_blame": [
        (
            "layer 3 is beyond recognition: about 0",
            "abs(at(comparison, 'hurt', 'cosine_to_baseline', 3)) < 0.1"
            " and abs(at(comparison, 'hurt', 'norm_ratio', 2) - 3) < 0.01",
        ),
        (
            "moves too, but less than layer 3, and its length hardly changes",
            "0.3 < at(comparison, 'hurt', 'cosine_to_baseline', 5) < 0.9"
            " and abs(at(comparison, 'hurt', 'norm_ratio', 5) - 1) < 0.3",
        ),
        (
            "Layer 5 gives nearly all back. Layer 6 and layer 1, which were not touched, give exactly 0",
            "(lambda of: of[5] > 0.9 and of[1] == 0 and of[6] == 0 and (of[[2, 3, 4]] < 0).all())"
            "(weights.value.sel(measure='kl', language='pooled').to_series())",
        ),
        (
            "0 at layers 0, 1 and 4: nothing is lost up to there. 1 at layers 5 and 6",
            "(lambda of: (of[[0, 1, 4]].abs() < 1e-3).all() and (of[[5, 6]] > 0.999).all())"
            "(states.value.sel(measure='kl', language='pooled').to_series())",
        ),
        (
            "The attention and the feed-forward part of block 5 stand out",
            "(lambda of: (of[~of.index.str.startswith(('5.', '6.'))].abs() < 1e-3).all()"
            " and of.abs().max() == of[of.index.str.startswith('5.')].abs().max())"
            "(screened.gain.sel(measure='kl', language='pooled').to_series())",
        ),
        (
            "French was lost, caused by layer 5, with what to expect of giving it back; and that the states move most"
            " at layer 3, which is no cause. Of `harmless`: kept, and no cause",
            "(lambda v: v.state('harmless') == 'kept' and v.state('hurt') == 'lost' and 'at layer 3, which is none' in"
            " ' '.join(str(v).split()) and set(v.causes.loc[v.causes['named'].astype(bool), 'layer']) == {5})"
            "(comparison.verdict())",
        ),
        (
            "Layer 5 does about all of the damage by itself",
            "0.8 < harm.to_series()[5] < 1.2 and harm.to_series()[3] > 2",
        ),
        ("Nothing: the damage is the same as before", "abs(left[0] - left[1]) < 0.01 * left[0]"),
    ],
    # Of the encoder that it names, where that is installed.
    "7_a_real_encoder": [
        (
            "both were lost in French, by 12 and 13 points",
            "not checkpoint or [round(100 * gaps(comparison, m, 'retrieval', 6)['fr']) for m in"
            " ('three bits', 'pruned')] == [-12, -13] and {comparison.verdict(tolerance={'retrieval': 0.03}).state(m)"
            " for m in ('three bits', 'pruned')} == {'lost'}",
        ),
        (
            "Hindi is kept, which is no praise: the original finds hardly one sentence in five hundred there",
            "not checkpoint or (lambda rows: set(rows[rows['language'] == 'hi']['state']))(comparison.verdict("
            "tolerance={'retrieval': 0.03}).languages) == {'kept'}"
            " and at(comparison, 'original', 'retrieval', 6, 'hi') < 0.002",
        ),
        (
            "finds 30 % of the French sentences at the last layer, 17 % of the German ones",
            "not checkpoint or [round(at(comparison, 'original', 'retrieval', 6, x), 2) for x in ('fr', 'de')]"
            " == [0.30, 0.17]",
        ),
        (
            "0.005 at the last layer, where English has 0.126",
            "not checkpoint or [round(at(comparison, 'original', 'class_separability', 6, x), 3) for x in ('hi', 'en')]"
            " == [0.005, 0.126]",
        ),
        (
            "six layers of 384",
            "not checkpoint or (model.config.num_hidden_layers, model.config.hidden_size) == (6, 384)",
        ),
    ],
    "9_quantise_a_language_model": [
        (
            "give a probability to each of 4,000 tokens",
            "len(tokenizer) == 4000 == model.config.vocab_size",
        ),
        (
            "so both take the same bytes",
            "nearest.config.compression['bytes_of_model'] == fitted.config.compression['bytes_of_model']",
        ),
        (
            "rounding to nearest moved the next token by 0.07 nats, GPTQ by half as much, and the intervals"
            " lie far apart",
            "abs(float(moved['to nearest'].value['pooled']) - 0.07) < 0.005"
            " and 0.45 < float(moved['GPTQ'].value['pooled'] / moved['to nearest'].value['pooled']) < 0.55"
            " and moved['GPTQ'].high['pooled'] < moved['to nearest'].low['pooled']",
        ),
        ("It helps in every language", "(moved['GPTQ'].value < moved['to nearest'].value).all()"),
        (
            "The language that moved most is Russian, in both",
            "{m.value.drop('pooled').idxmax() for m in moved.values()} == {'ru'}",
        ),
        (
            "Chinese is the hardest, by token and by byte; Russian is hard by token only",
            "(lambda t: t['zh'].eq(t.drop(columns='pooled').max(axis=1)).all()"
            " and t.loc['nats_per_token', 'ru'] > 2 and t.loc['bits_per_byte', 'ru'] <"
            " t.loc['bits_per_byte', 'pooled'])"
            "(alone.value.sel(measure=['nats_per_token', 'bits_per_byte']).to_pandas())",
        ),
        (
            "Half of the tokens moved by less than a fifth of the mean",
            "all(5 * float(f.value.sel(measure='kl_median', language='pooled'))"
            " < float(f.value.sel(measure='kl', language='pooled')) for f in said.values())",
        ),
        (
            "The first guess stayed the same at nine tokens of ten",
            "all(round(10 * float(f.value.sel(measure='same_top_token', language='pooled'))) == 9"
            " for f in said.values())",
        ),
        (
            "More: 0.130 nats",
            "round(halved.value.sel(measure='kl', language='pooled').item(), 3) == 0.130",
        ),
    ],
    "10_write_your_own_probe": [
        (
            "At the embeddings 18 % of the variance is the language, at the last layer 3 %",
            "[round(at(comparison, 'base', 'language_share', k), 2) for k in (0, 6)] == [0.18, 0.03]",
        ),
        (
            "5 % at the last layer, and its band does not touch the other",
            "round(at(comparison, 'pruned', 'language_share', 6), 2) == 0.05"
            " and at(comparison, 'pruned', 'language_share', 6, column='low')"
            " > at(comparison, 'base', 'language_share', 6, column='high')",
        ),
        (
            "retrieval rises from 0.71 to 0.85",
            "[round(at(comparison, m, 'retrieval', 6), 2) for m in ('base', 'pruned')] == [0.71, 0.85]",
        ),
        (
            "With shuffled languages 0.3 % are left, a tenth",
            "round(language_share(last, shuffled), 3) == 0.003"
            " and 8 < language_share(last, reps.language.values) / language_share(last, shuffled) < 12",
        ),
        (
            "so the first layer has not moved",
            "at(moved, 'pruned', 'distance_moved', 0) < 1e-6 < 0.1 < at(moved, 'pruned', 'distance_moved', 1)",
        ),
    ],
    "11_when_alignment_goes": [
        (
            "in 71 % of the cases before, in 38 % after ten steps and in 20 % after sixty",
            "[int(100 * at(comparison, f'tuned {k}', 'retrieval', 6)) for k in (0, 10, 60)] == [71, 38, 20]",
        ),
        (
            "up to layer 5, the lower a layer, the less it lost",
            "(lambda lost: lost == sorted(lost) and lost[0] < 0.02)"
            "([at(comparison, 'tuned 0', 'retrieval', k) - at(comparison, 'tuned 60', 'retrieval', k)"
            " for k in range(6)])",
        ),
        (
            "From layer 2 up alignment is gone at step 10, the first time that we looked; at layer 1 at step 20; at the"
            " embeddings it stays",
            "(lambda s: [s[k] for k in range(2, 7)] == [10] * 5 and s[1] == 20 and str(s[0]) == '<NA>')"
            "(since.query(\"language == 'pooled' and probe == 'retrieval'\").set_index('layer')['step'])",
        ),
        (
            "English stays at 97 to 99 %",
            "accuracy.query(\"language == 'en'\")['value'].round(2).between(0.97, 0.99).all()",
        ),
        (
            "fall from 76 to 70 % within the first ten steps, and no further step changes that beyond its interval",
            "[round(100 * v) for v in before['value'][:2]] == [76, 70] and before['adjusted_high'].iloc[1] < 0"
            " and ((before['adjusted_low'] < 0) & (before['adjusted_high'] > 0))[2:].all()",
        ),
        (
            "while retrieval goes on falling for another twenty",
            "comparison.steps(against='before', over=('model',)).query(\"probe == 'retrieval' and language == 'pooled'"
            " and layer == 4\")['adjusted_high'].lt(0).tolist() == [False, True, True, True, False, False, False]",
        ),
        (
            "a third of the alignment is left, and most of the answers",
            "0.25 < at(comparison, 'tuned 60', 'retrieval', 6) / at(comparison, 'tuned 0', 'retrieval', 6) < 0.4"
            " and at(comparison, 'tuned 60', 'accuracy') / at(comparison, 'tuned 0', 'accuracy') > 0.85",
        ),
        (
            "Nearly: 0.66 in place of 0.71 at the last layer, and accuracy has not fallen",
            "[round(at(gently.comparison(), f'gently {k}', 'retrieval', 6), 2) for k in (0, 60)] == [0.71, 0.66]"
            " and at(gently.comparison(), 'gently 60', 'accuracy', column='difference') >= 0",
        ),
    ],
    "12_a_distilled_diffusion_model": [
        ("in every row more than 95 % of the samples", "table['accuracy'].min() > 0.95"),
        (
            "In 64 steps the teacher's digits are nearly as various as real ones, in 4 steps little more than half as"
            " much",
            "table['variety']['teacher, 64 steps', 0] > 0.9 and 0.5 < table['variety']['teacher, 4 steps', 0] < 0.65",
        ),
        ("The student in 4 steps keeps nearly nine tenths", "0.84 < table['variety']['student, 4 steps', 0] < 0.94"),
        (
            "Guidance costs variety too, whoever samples, and takes the samples away from the real ones",
            "(table['variety'].xs(1, level=1) < table['variety'].xs(0, level=1)).all()"
            " and (table['Fréchet'].xs(1, level=1) > 5 * table['Fréchet'].xs(0, level=1)).all()",
        ),
        (
            "takes less than a fifteenth of the time",
            "table['times as fast']['student, 4 steps', 1] > 15",
        ),
        (
            "CKA is above 0.95 in all layers and at all levels, lowest at the least noise",
            "alike.min(axis=None) > 0.95 and (alike.idxmin(axis=1) == 'noise 0.25').all()",
        ),
        (
            "At the least noise, 0.25, the digits lie further apart in every layer of the student; at 0.50 and above"
            " they lie closer together in the last two",
            "all(apart['difference_low'][k, 'noise 0.25'] > 0 for k in range(4))"
            " and all(apart['difference_high'][k, f'noise {v:.2f}'] < 0 for k in (2, 3) for v in (0.5, 0.75, 1))",
        ),
        (
            "Pooled over all levels, the loss in the last two layers is what is left to see",
            "all(at(comparison, '4 steps', 'class_separability', k, column='difference_high') < 0 for k in (2, 3))",
        ),
        (
            "about four fifths are left, and the class stays",
            "0.7 < left < 0.88 and judge.score(one, wanted) > 0.95",
        ),
    ],
    "13_which_languages_fall_first": [
        (
            "Half of the models lost next to nothing, less than 3 of 100 translations on the mean over languages, and "
            "the worst lost nearly all",
            "mean.median() < 0.03 and mean.max() > 0.9",
        ),
        (
            "6 of 100 translations are no longer found, on the mean. In Finnish it is 18, in German 1",
            "(lambda x: (round(100 * x.mean()), x.idxmax(), round(100 * x.max()), x.idxmin(), round(100 * x.min())))"
            "(between.loc['magnitude 60 %']) == (6, 'fin_Latn', 18, 'deu_Latn', 1)",
        ),
        (
            "Rounded to three bits it lost 10 on the mean, 1 in Portuguese and 31 in Hebrew",
            "(lambda x: (round(100 * x.mean()), x.idxmax(), round(100 * x.max()), x.idxmin(), round(100 * x.min())))"
            "(between.loc['rounding 3 bits']) == (10, 'heb_Hebr', 31, 'por_Latn', 1)",
        ),
        (
            "Finnish, Hebrew, Korean, Swahili and Greek lose more than the mean, whichever models are drawn; French, "
            "Spanish, German, Portuguese, Italian and Dutch lose less",
            "(falls.loc[['fin_Latn', 'heb_Hebr', 'kor_Hang', 'swh_Latn', 'ell_Grek'], 'low'] > 0).all()"
            " and (falls.loc[near, 'high'] < 0).all()",
        ),
        (
            "How much text of a language CC-100 has says nothing of what it loses. Whether it is a relative of English "
            "says a good deal",
            "(lambda c: abs(c['less text']) < 0.25 and c['no relative of English'] > 0.6)"
            "(about.astype(float).corr(method='spearman')['lost'])",
        ),
        (
            "CKA, loyalty and the other measures of likeness to the original at the last layer come first, at 0.8 and "
            "above. Within a model none says much, 0.4 at the most",
            "warned['over all'].loc[[f'{m}, end' for m in ALIKE]].min() > 0.8"
            " and warned.index[0].split(',')[0] in ALIKE and warned['within a model'].max() < 0.45",
        ),
        (
            "Lengths and ranks of the states are worse at both, and in some family they point the other way",
            "warned['over all'].filter(regex='^(norm|effective_rank)').max()"
            " < warned['over all'].loc[[f'{m}, end' for m in ALIKE]].min()"
            " and warned['worst family'].filter(regex='^(norm|effective_rank)').min() < 0",
        ),
        (
            "catches more than eight in ten of the bad cases. It pays with false alarms, most of them where a model "
            "was pruned",
            "(lambda a: a['caught'].sum() / a['bad'].sum() > 0.8 and a['false alarms'].idxmax() == 'pruning')"
            "(alarm('cka, end'))",
        ),
        (
            "Where layers were dropped it misses most",
            "(lambda a: (a['caught'] / a['bad']).idxmin() == 'fewer layers')(alarm('cka, end'))",
        ),
        (
            "the head was right for 58 of 100 Portuguese sentences before any compression, in no language for fewer",
            "by_accuracy.index[-1] == 'por_Latn' and right.loc['original'].idxmin() == 'por_Latn'"
            " and round(100 * right.loc['original', 'por_Latn']) == 58",
        ),
        (
            "Yes, about as well as loyalty does; the length of the states does it worse",
            "still['cka, end'] > 0.6 and abs(still['cka, end'] - still['label_loyalty, end']) < 0.1"
            " and still['norm, end'] < still['cka, end'] - 0.1",
        ),
        (
            "In pruned models it rings for more than half of all that is fine",
            "by_norm.loc['pruning', 'false alarms'] > by_norm.loc['pruning', 'fine'] / 2",
        ),
    ],
}


def solutions(notebook: nbformat.NotebookNode) -> str:
    """The code of the solutions of a tutorial's exercises."""
    return "\n\n".join(re.findall(r"```python\n(.*?)\n```", notebook.cells[-1].source, flags=re.DOTALL))


def checks(stem: str) -> str:
    """A cell that raises where what a tutorial says is not so."""
    lines = [f"assert {what}, {text!r}" for text, what in CLAIMS.get(stem, [])]
    return "\n".join([PRELUDE, *lines])
