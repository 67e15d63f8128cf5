"""Rewards of similarity: gradients by exhaustive sums, losses by hand, training, checkpoints, and bad input."""

import copy
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from speaking import of_masked_tokens
from trained import QUIET, same, weights

import compress
import probes
from compress import SimilarityReward
from compress.objectives import reward as rewarding
from compress.objectives.base import Pass
from compress.objectives.reward import actor_critic, ends_of, prompt_of
from compress.objectives.sentences import Sentences, likeness
from compress.training import train

VOCABULARY, LENGTH, END = 5, 3, 0


@pytest.fixture(scope="module")
def encoder(tiny_models, make_tokenizer):
    return tiny_models("BertModel", num_hidden_layers=1), make_tokenizer()


@pytest.fixture(scope="module")
def speaker(tiny_models):
    return tiny_models("LlamaForCausalLM", pad_token_id=0, num_hidden_layers=1)


@pytest.fixture(scope="module")
def prompts():
    texts = ["red dog", "small bird sang", "big cat", "he ran on", "the", "a tree"]
    rows = [
        {"id": i, "language": "en", "text": t, "reference": f"{t} under the tree and {t}"} for i, t in enumerate(texts)
    ]
    corpus = probes.load_corpus(pd.DataFrame(rows))
    return (
        corpus.add_column("reference", [row["reference"] for row in rows]) if "reference" not in corpus[0] else corpus
    )


def texts_of_three():
    """All texts of three tokens at most, of which the first one of END is the last."""
    for text in itertools.product(range(VOCABULARY), repeat=LENGTH):
        stop = text.index(END) if END in text else LENGTH - 1
        if all(token == 0 for token in text[stop + 1 :]):
            yield text[: stop + 1]


@pytest.mark.parametrize("kl", [0.0, 0.7])
def test_the_mean_gradient_of_the_actor_is_that_of_the_expected_reward(tiny_models, kl):
    model = tiny_models("GPT2LMHeadModel", n_layer=1)  # all of it in float64, which Llama's norms are not
    model.resize_token_embeddings(VOCABULARY)
    model = model.double()
    start = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    prompt, texts = [1, 3], list(texts_of_three())
    rng = np.random.default_rng(0)
    worth = {text[: i + 1]: rng.random() / LENGTH for text in texts for i in range(len(text))}

    # What is aimed at, text by text and without padding.
    aim, chances = 0.0, []
    for text in texts:
        ids = torch.tensor([[*prompt, *text]])
        mine, theirs = (m(input_ids=ids).logits[0, 1:-1].log_softmax(1) for m in (model, start))
        chance = mine[range(len(text)), list(text)].sum().exp()
        far = (mine.exp() * (mine - theirs.detach())).sum(1).sum()
        aim = aim + chance * (kl * far - sum(worth[text[: i + 1]] for i in range(len(text))))
        chances.append(chance.detach())
    assert float(sum(chances)) == pytest.approx(1)
    expected = torch.autograd.grad(aim, list(model.parameters()))

    # What the actor learns by, of all texts at once, each as often as it is drawn.
    rows = [[*prompt, *text] + [4] * (LENGTH - len(text)) for text in texts]
    ids = torch.tensor(rows)
    written = torch.tensor([[False] + [i < len(text) for i in range(LENGTH)] for text in texts])
    gains = torch.zeros(written.shape, dtype=torch.float64)
    for row, text in enumerate(texts):
        gains[row, 1 : len(text) + 1] = torch.tensor(
            [worth[text[: i + 1]] for i in range(len(text))], dtype=torch.float64
        )
    logits = model(input_ids=ids).logits[:, :-1]
    beginnings = {}  # whatever the critic says of a state, the mean is the same
    values = torch.zeros(written.shape, dtype=torch.float64)
    for row, text in enumerate(texts):
        for i in range(len(text)):
            values[row, 1 + i] = beginnings.setdefault(text[:i], rng.normal())
    said = actor_critic(
        logits.log_softmax(2), ids[:, 1:], values, gains, written, start(input_ids=ids).logits[:, :-1].detach(), kl
    )
    found = torch.autograd.grad((torch.stack(chances) * said.actor).sum(), list(model.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)
    assert max(float(g.abs().max()) for g in expected) > 1e-4


def test_losses_are_their_formulas_in_float64():
    rng = np.random.default_rng(0)
    texts, places, size = 3, 4, 6
    scores, start = rng.normal(size=(2, texts, places, size))
    taken, values = rng.integers(size, size=(texts, places)), rng.normal(size=(texts, places))
    written = np.array([[0, 1, 1, 1], [0, 0, 1, 0], [1, 1, 0, 0]], bool)
    gains = rng.random((texts, places)) / 4 * written
    logs, other = (z - np.log(np.exp(z).sum(2, keepdims=True)) for z in (scores, start))
    actor, critic, far = np.zeros(texts), np.zeros((texts, places)), np.zeros((texts, places))
    for i, t in itertools.product(range(texts), range(places)):
        if written[i, t]:
            far[i, t] = sum(np.exp(logs[i, t, v]) * (logs[i, t, v] - other[i, t, v]) for v in range(size))
    for i, t in itertools.product(range(texts), range(places)):
        if written[i, t]:
            to_come, value = gains[i, t:].sum(), 1 / (1 + np.exp(-values[i, t]))
            gain = to_come - value - 0.3 * far[i, t + 1 :].sum()
            actor[i] += -gain * logs[i, t, taken[i, t]] + 0.3 * far[i, t]
            critic[i, t] = -to_come * np.log(value) - (1 - to_come) * np.log(1 - value)
    given = [torch.tensor(x, requires_grad=x is values) for x in (logs, taken, values, gains, written, start)]
    said = actor_critic(*given, 0.3)
    for found, expected in zip(said, (actor, critic, far), strict=True):
        np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-12)
    (slope,) = torch.autograd.grad(said.critic.sum(), given[2])
    returns = np.cumsum(gains[:, ::-1], axis=1)[:, ::-1]
    np.testing.assert_allclose(slope.numpy(), (1 / (1 + np.exp(-values)) - returns) * written, atol=1e-12)


def test_rewards_lie_where_texts_and_segments_end(encoder, make_tokenizer):
    tokenizer = make_tokenizer()

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    end = tokenizer.sep_token_id
    texts = [[*ids("red dog ran on"), end], ids("small bird sang"), [end], [*ids("the cat"), end]]
    goals = [ids("red dog sat"), ids("small bird sang under tree"), ids("he"), ids("the cat")]

    def alike(*pairs, **how):
        sides = [Sentences(*encoder).vectors(list(side)) for side in zip(*pairs, strict=True)]
        return likeness(*sides, **how).tolist()

    found = SimilarityReward(encoder, references="r").rewards(texts, goals, tokenizer, [end])
    one, two, four = alike(
        ("red dog ran on", "red dog sat"), ("small bird sang", "small bird sang under tree"), ("the cat", "the cat")
    )
    assert found == [
        [0, 0, 0, 0, pytest.approx(one)],
        [0, 0, pytest.approx(two)],
        [0],
        [0, 0, pytest.approx(four)],
    ]
    assert four == pytest.approx(1 / (1 + np.exp(-3)))
    how = {"similarity": "manhattan", "steepness": 0.1}
    found = SimilarityReward(encoder, references="r", segment=2, **how).rewards(texts, goals, tokenizer, [end])
    first, second, third, fourth, fifth = (
        value
        for value in alike(
            ("red dog", "red dog"), ("ran on", "sat"), ("small bird", "small bird"), ("sang", "sang under"),
            ("the cat", "the cat"), **how,
        )
    )  # fmt: skip
    assert found[0] == [0, pytest.approx(first / 2), 0, pytest.approx(second / 2), 0]
    assert found[1] == [0, pytest.approx(third / 3), pytest.approx(fourth / 3)]  # the third segment was not written
    assert found[2:] == [[0], [0, pytest.approx(fifth), 0]]
    assert first == third == fifth == 1


def test_the_loss_of_a_batch_by_hand(encoder, speaker, prompts, make_tokenizer, monkeypatch):
    tokenizer = make_tokenizer()
    student = copy.deepcopy(speaker).double().train()
    goals, end = list(prompts["reference"]), tokenizer.sep_token_id
    written = [[9, 10, end], [12], [7, 8, 9]]
    monkeypatch.setattr(rewarding, "continued", lambda model, given, **how: written)
    objective = SimilarityReward(encoder, references="reference", length=3, kl=0.5, weight=2.0)
    rows = [{"beside": {"reference": goal}} for goal in goals]
    state = objective.prepare(student, None, rows, seed=0).double()
    with torch.no_grad():
        state.value_head.weight.normal_(generator=torch.Generator().manual_seed(0))
        for parameter in student.parameters():
            parameter.mul_(1.1)
    asked = tokenizer(list(prompts["text"][:3]), padding=True, return_tensors="pt")
    batch = {**asked, "index": torch.tensor([0, 1, 2]), "modules": {objective.name: state}, "tokenizer": tokenizer}
    loss = objective(Pass(student, None), None, batch)
    found = torch.autograd.grad(loss, [*student.parameters(), *state.parameters()])

    won = [sum(r) for r in objective.rewards(written, [tokenizer(g, add_special_tokens=False)["input_ids"] for g in goals[:3]], tokenizer, [end])]  # fmt: skip  # noqa: E501
    assert min(won) > 0
    actor = critic = apart = 0.0
    for row, text, reward in zip(asked["input_ids"], written, won, strict=True):
        prompt = prompt_of(row[row != 0].tolist(), tokenizer)
        ids, size = torch.tensor([prompt + text]), len(text)
        out = student(input_ids=ids, output_hidden_states=True)
        logs = out.logits[0, -size - 1 : -1].log_softmax(1)
        other = state.start(input_ids=ids).logits[0, -size - 1 : -1].log_softmax(1)
        far = (logs.exp() * (logs - other)).sum(1)
        values = state.value_head(out.hidden_states[-1][0, -size - 1 : -1].detach())[:, 0].sigmoid()
        for t, token in enumerate(text):
            gain = reward - values[t].detach() - 0.5 * far[t + 1 :].sum().detach()
            actor = actor - gain * logs[t, token] / 3 + 0.5 * far[t] / 3
            critic = critic - (reward * values[t].log() + (1 - reward) * (1 - values[t]).log()) / 7
        apart = apart + float(far.sum()) / 3
    expected = torch.autograd.grad(2 * actor + critic, [*student.parameters(), *state.parameters()])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    assert float(loss) == pytest.approx(2 * (0.5 * apart - np.mean(won)))
    noted = {k.removeprefix("similarity_reward."): v for k, v in state.noted.items()}
    assert noted == pytest.approx(
        {"reward": np.mean(won), "kl": apart, "length": 2, "repetition": 0, "critic": float(critic)}
    )
    assert student.training
    assert int(state.batches) == 1
    assert {k.split(".")[0] for k in state.state_dict()} == {"batches", "value_head"}  # all that is kept


@pytest.fixture
def rewarded(encoder, speaker, prompts, make_tokenizer):
    """Returns a training of the speaker: its history, the student, and how it was before."""

    def run(corpus=prompts, objective=None, **settings):
        student = copy.deepcopy(speaker)
        objective = objective or SimilarityReward(encoder, references="reference", length=4, middle=0.0, steepness=3.0)
        given = {"objective": [objective], "steps": 4, **QUIET, "batch_size": 4} | settings
        return train(student, make_tokenizer(), corpus, **given), student

    return run


def test_a_training_goes_on_as_it_would_have(rewarded, tmp_path):
    history, whole = rewarded()
    assert not same(weights(whole), weights(rewarded(seed=1)[1]), atol=1e-6)
    kept = {"folder": tmp_path, "save_every": 2}
    rewarded(**kept)
    assert (tmp_path / "checkpoint-4" / "objectives.safetensors").is_file()
    for file in (tmp_path / "checkpoint-4").iterdir():
        file.unlink()
    with pytest.warns(probes.LayerscopeWarning, match="checkpoint-4 is passed over"):
        again, student = rewarded(**kept)
    assert same(weights(whole), weights(student))
    pd.testing.assert_frame_equal(history, again)
    columns = [f"similarity_reward{k}" for k in ("", ".reward", ".kl", ".length", ".repetition", ".critic")]
    assert list(history) == ["step", columns[0], "loss", *columns[1:]]
    assert history[columns[2]][0] == pytest.approx(0, abs=1e-6)  # it is where it began
    assert type(student) is type(whole)
    assert not hasattr(student, "value_head")


def test_reward_rises_where_it_can_and_kl_holds(encoder, speaker, make_tokenizer):
    tokenizer = make_tokenizer()
    corpus = probes.load_corpus(pd.DataFrame({"id": range(8), "language": "en", "text": ["the dog"] * 8}))
    corpus = corpus.add_column("reference", ["tree"] * 8)

    def trained(kl):
        student = copy.deepcopy(speaker)
        objective = SimilarityReward(encoder, references="reference", length=1, middle=0.95, steepness=50.0, kl=kl)
        how = {"steps": 14, "learning_rate": 1e-1, "batch_size": 8, "progress": False, "scheduler": "constant"}
        return train(student, tokenizer, corpus, objective=[objective], **how).iloc[[*range(4), *range(-4, 0)]]

    free, held = trained(0.0), trained(20.0)
    won = free["similarity_reward.reward"].to_numpy()
    assert won[4:].mean() > won[:4].mean() + 0.2
    assert held["similarity_reward.reward"].to_numpy()[4:].mean() < won[4:].mean() - 0.2
    assert held["similarity_reward.kl"].iloc[4:].max() < 0.05
    assert (free["similarity_reward.kl"] == 0).all()  # it is not looked at


def test_a_teacher_writes_the_references(encoder, speaker, prompts, make_tokenizer):
    tokenizer = make_tokenizer()
    objective = SimilarityReward(encoder, length=4)
    before = weights(speaker)
    how = {"objective": objective, "steps": 2, **QUIET}
    made = compress.finetune(speaker, tokenizer, prompts, **how)
    assert made.config.compression["objective"] == ["similarity_reward"]
    assert same(before, weights(speaker))
    rows = [{"input_ids": tokenizer(text)["input_ids"]} for text in prompts["text"]]
    state = objective.prepare(speaker, speaker, rows, seed=0)
    end = ends_of(speaker, tokenizer)
    asked = {"input_ids": torch.tensor([rows[4]["input_ids"]]), "attention_mask": torch.ones(1, 3)}
    state.written(speaker, asked | {"index": torch.tensor([4]), "tokenizer": tokenizer})
    text = torch.tensor([rows[4]["input_ids"][:-1]])
    likeliest = []
    for _ in range(4):
        with torch.no_grad():
            likeliest.append(int(speaker(input_ids=text).logits[0, -1].argmax()))
        text = torch.cat([text, torch.tensor([[likeliest[-1]]])], 1)
        if likeliest[-1] in end:
            break
    assert state.known == {4: [token for token in likeliest if token not in end]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"encoder": 3}, r"the encoder is a int: expected a model of transformers, a model and its tokenizer, or"),
        ({"similarity": "dot"}, r"similarity='dot': expected one of \('cosine', 'manhattan', 'euclidean'\)"),
        ({"steepness": 0.0}, r"steepness=0.0|steepness=0: expected a finite number above 0"),
        ({"kl": -1.0}, r"kl=-1.0: expected a finite number at least 0"),
        ({"length": 0}, r"length=0: expected a whole number of at least 1"),
        ({"segment": 1.5}, r"segment=1.5: expected a whole number of at least 1"),
        ({"references": ["a"]}, r"references is a list: expected the name of a column of the corpus, or nothing"),
    ],
)
def test_settings_that_cannot_be(encoder, given, message):
    with pytest.raises(probes.InputError, match=message):
        SimilarityReward(**{"encoder": encoder} | given)


def test_what_does_not_fit_is_refused_before_a_step(encoder, speaker, classifier, prompts, make_tokenizer, tiny_models):
    tokenizer = make_tokenizer()
    masked = of_masked_tokens(tokenizer)
    gaps = prompts.remove_columns("reference").add_column("reference", ["red", None, "a", "b", "c", "d"])
    strange = prompts.map(lambda row: {"language": "xx" if row["id"] == "2" else "en"})
    strange = strange.map(lambda row: {"reference": "unheard words" if row["language"] == "xx" else row["reference"]})
    for model, corpus, how, message in (
        (
            speaker,
            gaps,
            {},
            r"row 1 of those trained on \(language 'en'\) has no reference: expected a text in the col",
        ),
        (
            speaker,
            strange,
            {},
            r"cannot embed the language 'xx': its tokenizer knows no letter of its 1 texts, as 'unh",
        ),
        (speaker, prompts.remove_columns("reference"), {}, r"the corpus has no column 'reference'"),
        (speaker, prompts, {"length": 40}, r"a prompt of 4 tokens and length=40 more are above the 32 that .* reads"),
        (speaker, prompts, {"layer": 7}, r"layer=7: expected 0, the embeddings of .*, to 1, its last layer"),
        (classifier, prompts, {}, r"BertForSequenceClassification writes no text: expected a causal language"),
        (masked, prompts, {}, r"objective similarity_reward: BertForMaskedLM writes no text"),
        (tiny_models("T5ForConditionalGeneration"), prompts, {}, r"T5ForConditionalGeneration writes no text"),
        (speaker, prompts, {"references": None}, r"objective similarity_reward needs a teacher, found none"),
    ):
        objective = SimilarityReward(encoder, **{"references": "reference", "length": 4} | how)
        with pytest.raises(probes.InputError, match=message):
            train(copy.deepcopy(model), tokenizer, corpus, objective=[objective], steps=1, **QUIET)
