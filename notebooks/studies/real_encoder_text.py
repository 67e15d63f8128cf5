"""The words of the page of the study of a real encoder; the numbers are filled in by real_encoder_page.py."""

import real_encoder_warning as warning

TEXT = """# A real encoder: what compression does to {languages} languages

multilingual-e5-small, {about[layers]} layers of {about[features]} features, is compressed without training in {runs}
ways, and what each copy makes of the same sentences in {languages} languages is measured at every layer. Retrieval is
how often the nearest sentence of the other language is the translation, to and from {pivot}; accuracy is that of one
linear head for seven topics, fitted once on the original's states of English text, so that all other languages are
zero-shot. **{runs} of {every} runs without training are in it.** Models that were fine-tuned, and compressed
while they were, are on [a page of their own](real_encoder_trained.md).

## Answers

{answers}

{ceiling}An interval is over groups of sentences (articles), 95 %; where languages are named it holds for all of them
at once.

![what some models lost in each language](real_encoder_story.png)

One mean over languages hides them: models that lost neither nothing nor all, and of each what every language lost.

![what is kept against bytes](real_encoder_tradeoff.png)

Embeddings are 82 % of the parameters, so that what leaves them alone saves little; the axis leaves out what lies
between. Dotted is the original.

![what each model lost in each language](real_encoder_languages.png)

Models that lost less than {seen:.2f} of retrieval in every language, {unseen} of {runs}, are not drawn.

![retrieval by layer](real_encoder_layers.png)

![how well each measure tells what was lost](real_encoder_warning.png)

Left, the rank correlation of each measure's damage with what was lost; right, the best one for retrieval.

## How it was done

The corpus is the test split of SIB-200: {about[ids]} ids in {names}. Ids are numbers of FLORES sentences, where those
of one article follow each other: sentences whose numbers are at most {neighbours} apart are one group,
{about[groups]} in all, and the {draws} draws of the bootstrap are of groups, the same for every model. "Lost" is said
of a language where the interval of its difference, for all languages and both measures at once, lies wholly beyond a
loss of {tolerance:.2f}. Texts have "{prompt}" before them, as the encoder asks for, and a text's state is the mean
over its tokens and these. What looks at text to compress by (Wanda, SparseGPT, GPTQ, AWQ, SVD by activation, which
layers go) sees {texts} sentences of the train split, in every language in turn, or in English where the name says so.
{coarse}A run takes {cpu:.0f} seconds of a core.

MODEL is a folder as `transformers` saves it: multilingual-e5-small (arXiv 2402.05672, MIT), on the Hugging Face Hub
as `intfloat/multilingual-e5-small`. DATA is a folder with `sib200.train.parquet`, `sib200.dev.parquet` and
`sib200.test.parquet`, each with the columns `id` (`index_id`), `language` (as `swh_Latn`), `text` and `label`
(`category`) of these languages: SIB-200 (arXiv 2309.07445, CC-BY-SA 4.0), on the Hub as `Davlan/sib200`.

`real_encoder_check.py` beside the script computes retrieval, accuracy and the cosine to the original again, for the
original and a copy that it prunes itself, by plain transformers and NumPy; it fails where they are not the same.

## What is not in it

{missing}

`make study-real MODEL=FOLDER DATA=FOLDER ONLY=training-free` makes what is missing. Not looked at: other encoders,
other draws of calibration text, tasks other than retrieval and topics. What would change the mind: another encoder in
which other languages fall first, or a family of compressions whose damage the best measure does not see.

## At equal bytes

The best of all runs within a share of the original's bytes. It was chosen on the sentences that it is told by, which
flatters it a little.

{front}
## Which languages fall first

The mean over {families} families of compressions, each the mean of its runs, without smaller vocabularies, which lose
the languages whose tokens are left out; `beyond` is the distance to the mean
over all languages, with an interval that holds for all at once.

{falls}
## What the loss follows

Spearman's correlation over languages of that loss with what a language is, higher where it is expected to lose more.
Tokens are those of the encoder's tokenizer for the same sentences, beside English ones; the last is how far
translations lie apart in the original. How much text of each language the encoder itself read is not known: its report
(arXiv 2402.05672) names sources of its pairs (mC4, CC News, NLLB, Wikipedia and others), and no amounts by language.
Text in CC-100 is what XLM-R read, from which the encoder's predecessor was distilled (gibibytes); text in mC4, one of
those sources, is as mT5 counts it (arXiv 2010.11934, tokens). Intervals draw languages with repetition, and groups of
sentences; they hold for all {traits} at once. These traits go together, and a correlation names no cause.

{follows}
## Which measure warns

Each measure is taken as damage: less likeness to the original, or a distance from what it was there. `over all` is
the rank correlation of that damage with the loss over all models and languages, `within a model` over languages
alone, the mean over models that lost more than 0.01, `mild` over models that lost less than {mild:.1f}. For "family
left out" each family of compressions is looked at alone, and the lowest correlation is shown; `explained` is the
share of the error that a rising curve, learned on all other families, saves in the family left out, beside their mean
loss (below 0: worse than that). Intervals draw groups of sentences, models within their families, and languages.
"{bytes}" needs no measure, "{chance}" can know nothing: they are what others are held to.

{warned}
## Claims

Of the papers, and of what one may expect, without training where nothing else is said: the mean over the strengths
under `at` of what one keeps more than the other, all languages together. The last column is the verdict of the
studies of the bundled model, where it was fine-tuned. With this many claims one or two intervals that leave out zero
are to be expected by chance.

{claims}
## All runs

At the end of each model, all languages together; times as fast on batches of 32 texts, empty where the rounding is
simulated. What each keeps by language is in `real_encoder.csv`.

{overview}
## Where the numbers come from

{provenance}""".replace("{bytes}", warning.BYTES).replace("{chance}", warning.CHANCE)
