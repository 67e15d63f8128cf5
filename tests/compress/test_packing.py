"""Several texts in a row: which stand where, that each is read as if alone, and what cannot be packed."""

import pandas as pd
import pytest
import torch
import transformers
from speaking import BERT, masking_tokenizer, of_masked_tokens, of_the_next_token, spoken_corpus
from trained import QUIET, same, weights

import compress
from compress.packing import Apart, packed_rows
from compress.rows import training_rows
from compress.training.loop import train
from probes.errors import InputError
from probes.states.batches import collate
from probes.states.tokens import Padding

MODELS = [of_masked_tokens, of_the_next_token]


tokenizer, corpus = masking_tokenizer, spoken_corpus


def roberta(tokenizer):
    torch.manual_seed(0)
    changes = {"max_position_embeddings": 66, "pad_token_id": 0, **BERT}
    config = transformers.RobertaConfig(vocab_size=len(tokenizer), **changes)
    return transformers.RobertaForMaskedLM(config).eval()


def gpt2(tokenizer):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=32, pad_token_id=0
    )
    return transformers.GPT2LMHeadModel(config).eval()


def test_texts_are_put_side_by_side_as_they_come(tokenizer, corpus):
    model = of_masked_tokens(tokenizer)
    plain, _ = training_rows(corpus, model, tokenizer, numbered_by=None, words=True)
    rows, labelled = training_rows(corpus, model, tokenizer, numbered_by=None, words=True, packed=True, max_length=20)
    assert not labelled
    assert max(len(row["input_ids"]) for row in rows) <= 20
    assert len(rows) < len(plain)
    assert [row["index"] for row in rows] == list(range(len(rows)))
    texts = []
    for row in rows:
        assert all(len(row[key]) == len(row["input_ids"]) for key in ("segments", "words"))
        for number in range(row["segments"][-1] + 1):
            at = [i for i, segment in enumerate(row["segments"]) if segment == number]
            assert at == list(range(at[0], at[-1] + 1))
            texts.append([row["input_ids"][i] for i in at])
        of_words = [w for w in row["words"] if w >= 0]
        assert len(set(of_words)) == len(of_words)  # here a word is a token, and no two texts share a number
    assert texts == [row["input_ids"] for row in plain]


@pytest.mark.parametrize("make", [*MODELS, gpt2, roberta])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_each_text_is_read_as_if_it_stood_alone(tokenizer, make, attention):
    model = make(tokenizer)
    model.set_attn_implementation(attention)
    texts = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
    rows = packed_rows([{"input_ids": text} for text in texts], 12)
    batch = collate(Padding(0, left=False), [*rows, {**rows[0], "input_ids": [5] * 11, "segments": [0] * 11}])
    segments = batch.pop("segments")
    with torch.no_grad():
        found = model(**Apart(model, make in (gpt2, of_the_next_token))(model, batch, segments)).logits[0]
        alone = torch.cat([model(torch.tensor([text])).logits[0] for text in texts])
        crossing = model(batch["input_ids"][:1, :9]).logits[0]
    torch.testing.assert_close(found[:9], alone, rtol=0, atol=1e-5)
    assert (crossing - alone).abs().max() > 1e-3  # without the mask they would not be


@pytest.mark.parametrize("make", MODELS)
def test_the_loss_and_the_gradient_are_those_of_the_texts_in_rows_of_their_own(tokenizer, corpus, make):
    """In one batch of all texts; for masked tokens, which are drawn by place, all of them are masked."""
    given = {**QUIET, "batch_size": 64, "steps": 2, "learning_rate": 1e-2}
    steady = {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0} if make is of_masked_tokens else {}
    made, losses = [], []
    for packed in (False, True):
        model = make(tokenizer, **steady)
        objective = [compress.LanguageModel(packed=packed, masked=0.999999)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("compress.objectives.language_model.MASK", 2.0)  # nothing but the mask
            history = train(model, tokenizer, corpus, objective=objective, **given)
        made.append(weights(model))
        losses.append(history["loss"].to_numpy())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert same(made[0], made[1], atol=1e-4)


@pytest.mark.parametrize("make", MODELS)
def test_a_packed_training_goes_on_as_it_would_have_with_a_teacher(tokenizer, corpus, tmp_path, make):
    teacher = make(tokenizer)
    objective = [compress.LanguageModel(packed=True, whole_words=True), compress.SoftLabels(), compress.HiddenStates()]
    settings = {**QUIET, "batch_size": 2, "objective": objective, "teacher": teacher}
    whole, half, again = (compress.prune(teacher, sparsity=0.3) for _ in range(3))
    history = train(whole, tokenizer, corpus, steps=4, **settings)

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(half, tokenizer, corpus, steps=4, folder=tmp_path, save_every=2, callbacks=[Stop()], **settings)
    pd.testing.assert_frame_equal(
        train(again, tokenizer, corpus, steps=4, folder=tmp_path, save_every=2, **settings), history
    )
    assert same(weights(again), weights(whole))


def test_what_cannot_be_packed_is_refused(tokenizer, corpus):
    model = of_masked_tokens(tokenizer)

    def refused(message, *objective, model=model, **given):
        with pytest.raises(InputError, match=message):
            train(model, tokenizer, corpus, objective=list(objective), teacher=model, steps=1, **QUIET, **given)

    packing = compress.LanguageModel(packed=True)
    for other in (compress.Relational(), compress.Attentions(), compress.CoDIR(k=2)):
        refused(
            rf"objective {other.name} compares texts, and language_model packs several of them into a row",
            packing,
            other,
        )
    with pytest.raises(InputError, match=r"packed=True fills rows up, and neither .* give max_length=\.\.\."):
        packed_rows([{"input_ids": [1]}], None)

    class Bloom(transformers.BloomForCausalLM):
        """Its positions are counted from the mask, which has no place for them here."""

    torch.manual_seed(0)
    alibi = Bloom(
        transformers.BloomConfig(vocab_size=len(tokenizer), hidden_size=16, n_layer=1, n_head=2, pad_token_id=0)
    ).eval()
    with pytest.raises(InputError, match=r"packed=True: Bloom \(Bloom\) computes something else for texts that share"):
        Apart(alibi, True)
