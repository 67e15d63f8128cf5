import copy
import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from denoised import rows, tiny
from safetensors.torch import load_file, save_file
from speaking import masking, of_masked_tokens
from trained import QUIET, Remembers, Spoils, make_corpus, same, weights

import probes
from compress import (
    CRD,
    CandidateLabels,
    CodedTokens,
    CoDIR,
    GradDrop,
    LanguageModel,
    NearestWords,
    PairSupCon,
    ReplacedTokens,
    Robust,
    SimilarityReward,
    SupCLSeq,
    code_outputs,
    distill_diffusion,
    prune,
)
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.objectives.layers import AttentionOutputs, Attentions, HiddenStates
from compress.objectives.noise import NoiseContrast
from compress.objectives.sentence_noise import SentenceContrast
from compress.objectives.texts import CrossCorrelation
from compress.objectives.weights import AlignedWeights
from compress.training.loop import train


def test_learns_and_logs_every_update(make, tokenizer, corpus):
    student = make()
    before = weights(student)
    history = train(student, tokenizer, corpus, objective=[CrossEntropy()], steps=60, **QUIET | {"learning_rate": 1e-2})
    assert list(history) == ["step", "cross_entropy", "loss"]
    assert history["step"].tolist() == list(range(1, 61))
    assert history["loss"][-5:].mean() < 0.3 * history["loss"][:5].mean()
    assert not same(before, weights(student))


def test_only_the_rows_of_train_are_trained_on(make, tokenizer, corpus):
    kept = corpus.filter(lambda row: row["split"] == "train").remove_columns("split")
    one, other = make(), make()
    a = train(one, tokenizer, corpus, objective=[CrossEntropy()], steps=6, **QUIET)
    b = train(other, tokenizer, kept, objective=[CrossEntropy()], steps=6, **QUIET)
    pd.testing.assert_frame_equal(a, b)
    assert same(weights(one), weights(other))


def test_the_first_loss_is_that_of_an_independent_computation(make, tokenizer, corpus):
    student = make()
    rows = corpus.filter(lambda row: row["split"] == "train")
    with torch.no_grad():
        losses = [
            torch.nn.functional.cross_entropy(
                student(**tokenizer(row["text"], return_tensors="pt")).logits,
                torch.tensor(["xyz".index(row["label"])])[:1],
            )
            for row in rows
        ]
    # All rows are one batch: their order does not matter, and texts of different length are padded.
    history = train(student, tokenizer, corpus, objective=[CrossEntropy()], steps=1, progress=False, batch_size=36)
    assert history["loss"][0] == pytest.approx(float(sum(losses)) / len(losses), rel=1e-5)


def test_objectives_add_up_and_the_teacher_stays_as_it_was(make, tokenizer, corpus):
    student, teacher = make(), make()
    with torch.no_grad():
        teacher.classifier.weight.add_(1.0)
    teacher.train().classifier.eval()
    before, modes = weights(teacher), {name: m.training for name, m in teacher.named_modules()}
    parts = [CrossEntropy(), SoftLabels(weight=0.5, temperature=2.0), HiddenStates(weight=0.1), Attentions()]
    parts.append(AttentionOutputs())
    implementation = student.config._attn_implementation
    history = train(student, tokenizer, corpus, objective=parts, teacher=teacher, steps=3, **QUIET)
    names = [p.name for p in parts]
    np.testing.assert_allclose(history[names].sum(axis=1), history["loss"], rtol=1e-6)
    assert (history[names].loc[1:] > 0).all(axis=None)
    # Student and teacher differ in their heads alone at first.
    assert (history.loc[0, ["hidden_states", "attentions", "attention_outputs"]] < 1e-12).all()
    assert same(before, weights(teacher))
    assert all(teacher.get_submodule(name).training == mode for name, mode in modes.items())
    assert not any(m._forward_pre_hooks for model in (student, teacher) for m in model.modules())
    assert all(p.grad is None for p in teacher.parameters())
    assert student.config._attn_implementation == teacher.config._attn_implementation == implementation


def test_gradients_that_are_gathered_over_batches_are_those_of_one_large_batch(make, tokenizer, corpus):
    one, other = make(), make()
    a = train(one, tokenizer, corpus, objective=[CrossEntropy()], steps=1, progress=False, batch_size=36)
    b = train(other, tokenizer, corpus, objective=[CrossEntropy()], steps=1, progress=False, batch_size=9, accumulate=4)
    assert a["loss"][0] == pytest.approx(b["loss"][0], rel=1e-5)
    assert same(weights(one), weights(other), atol=1e-6)


def test_the_same_seed_gives_the_same_model_and_another_one_another(make, tokenizer, corpus):
    found = []
    for seed in (0, 0, 1):
        student = make(dropout=0.2)
        train(student, tokenizer, corpus, objective=[CrossEntropy()], steps=4, seed=seed, **QUIET)
        found.append(weights(student))
    assert same(found[0], found[1])
    assert not same(found[0], found[2], atol=1e-6)


def test_a_loss_that_is_not_finite_ends_it_by_name_and_keeps_the_last_checkpoint(make, tokenizer, corpus, tmp_path):
    student = make()
    with pytest.raises(probes.InputError, match=r"step 5: the objective 'spoilt' is nan. The last checkpoint is kept"):
        train(
            student,
            tokenizer,
            corpus,
            objective=[CrossEntropy(), Spoils(5)],
            steps=9,
            folder=tmp_path,
            save_every=2,
            **QUIET,
        )
    assert (tmp_path / "checkpoint-4" / "model.safetensors").is_file()
    assert all(torch.isfinite(p).all() for p in student.parameters())


def test_attention_is_watched_only_where_it_is_needed_and_not_after_an_error(make, tokenizer, corpus):
    class Looks(Spoils):
        def __init__(self, *needs):
            super().__init__(2)
            self.needs = frozenset(needs)

        def __call__(self, student, teacher, batch):
            found.append(student.attention_outputs)
            return super().__call__(student, teacher, batch)

    found: list = []
    for needs in ((), ("attention_outputs",)):
        student = make()
        with pytest.raises(probes.InputError, match="'spoilt' is nan"):
            train(student, tokenizer, corpus, objective=[Looks(*needs)], steps=2, **QUIET)
        assert not any(m._forward_pre_hooks for m in student.modules())
    assert found[:2] == [None, None]
    assert [x.shape[::2] for x in found[2]] == [(8, 12)] * 3


def test_the_mode_of_the_student_is_restored(make, tokenizer, corpus):
    student = make().eval()
    train(student, tokenizer, corpus, objective=[CrossEntropy()], steps=1, **QUIET)
    assert not student.training


# Labels


@pytest.mark.parametrize(
    "architecture", ["BertModel", "BertForSequenceClassification", "GPT2LMHeadModel", "LlamaModel"]
)
def test_labels_that_no_objective_needs_may_be_of_any_classes(tiny_models, tokenizer, corpus, architecture):
    student, teacher = tiny_models(architecture), tiny_models(architecture, num_hidden_layers=3)
    assert not set(corpus["label"]) & set(student.config.id2label.values())
    parts = [HiddenStates(), *([SoftLabels()] if "Classification" in architecture else [])]
    train(student, tokenizer, corpus, objective=parts, teacher=teacher, steps=1, **QUIET)


@pytest.mark.parametrize("order", ["xyz", "zxy"])
def test_labels_are_numbers_of_the_classes_of_the_model_that_is_to_know_them(
    tiny_models, make, tokenizer, corpus, order
):
    class Sees(CRD):
        def prepare(self, student, teacher, rows, seed):
            seen.append([row["labels"] for row in rows])
            return super().prepare(student, teacher, rows, seed)

    seen: list = []
    headless, student, teacher = tiny_models("BertModel"), make(), make()
    teacher.config.id2label = dict(enumerate(order))
    wanted = [label for label, split in zip(corpus["label"], corpus["split"], strict=True) if split == "train"]
    options = {"teacher": teacher, "steps": 1, **QUIET}
    train(headless, tokenizer, corpus, objective=[Sees(negatives="classes")], **options)
    train(student, tokenizer, corpus, objective=[Sees(negatives="classes"), CrossEntropy()], **options)
    assert [order[i] for i in seen[0]] == ["xyz"[i] for i in seen[1]] == wanted
    train(headless, tokenizer, corpus, objective=[Sees(), HiddenStates()], **options)
    assert [sorted(set(wanted))[i] for i in seen[2]] == wanted
    teacher.config.id2label = dict(enumerate("uvw"))
    with pytest.raises(probes.InputError, match=r"label 'x' is no class of model"):
        train(headless, tokenizer, corpus, objective=[Sees(negatives="classes")], **options)


def test_contrast_needs_no_classes_of_these_labels(tiny_models, tokenizer, corpus):
    found = []
    for names in ("xyz", "abc"):  # either way texts of one label are no negatives of each other
        student = tiny_models("BertModel")
        renamed = corpus.map(lambda row, names=names: {"label": names["xyz".index(row["label"])]})
        train(student, tokenizer, renamed, objective=[CoDIR()], teacher=tiny_models("BertModel"), steps=2, **QUIET)
        found.append(weights(student))
    assert same(*found)
    student = tiny_models("BertModel")
    bare = corpus.remove_columns("label")
    train(student, tokenizer, bare, objective=[CoDIR()], teacher=tiny_models("BertModel"), steps=2, **QUIET)
    assert not same(found[0], weights(student))


def test_the_teacher_runs_once_a_batch_however_many_need_it(make, tokenizer, corpus):
    teacher, calls = make(), []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    parts = [SoftLabels(), HiddenStates(), Attentions(), CrossCorrelation(), Remembers()]
    train(make(), tokenizer, corpus, objective=parts, teacher=teacher, steps=3, **QUIET)
    assert len(calls) == 3
    train(make(), tokenizer, corpus, objective=[CrossEntropy()], teacher=teacher, steps=3, **QUIET)
    assert len(calls) == 3


def test_a_student_learns_from_a_wider_and_deeper_teacher_of_another_family(tiny_models, make, tokenizer, corpus):
    teacher = make(hidden_size=16, num_attention_heads=4, num_hidden_layers=6)
    student = tiny_models("DistilBertForSequenceClassification", dropout=0.0, attention_dropout=0.0)
    student.config.id2label = teacher.config.id2label
    with_pairs = corpus.map(lambda row: {"text_pair": "a red dog"})  # of which DistilBERT takes no types
    parts = [SoftLabels(), HiddenStates(), Attentions(), CrossCorrelation()]
    settings = QUIET | {"learning_rate": 1e-2}
    history = train(student, tokenizer, with_pairs, objective=parts, teacher=teacher, steps=30, **settings)
    assert (history.iloc[-5:].mean() < history.iloc[:5].mean())[[p.name for p in parts]].all()
    assert set(dict(student.named_modules())) == set(dict(copy.deepcopy(student).named_modules()))


def test_texts_are_cut_where_the_teacher_cannot_read_on(make, make_tokenizer, corpus):
    long = corpus.map(lambda row: {"text": " ".join([row["text"]] * 9)})
    student, teacher = make(max_position_embeddings=64), make(max_position_embeddings=16)
    longer = make_tokenizer(limit=64)
    train(student, longer, long, objective=[SoftLabels()], teacher=teacher, steps=1, **QUIET)
    few = make_tokenizer(words=[f"w{i}" for i in range(60)])
    wide = make()
    wide.resize_token_embeddings(64)
    with pytest.raises(probes.InputError, match="tokenizer and model do not fit: 64 tokens, but"):
        train(wide, few, long, objective=[SoftLabels()], teacher=make(), steps=1, **QUIET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"steps=0: expected a whole number of at least 1"),
        ({"learning_rate": 0.0}, r"learning_rate=0.0: expected a number above 0"),
        ({"batch_size": 0}, r"batch_size=0: expected a whole number of at least 1"),
        ({"objective": [SoftLabels()]}, "soft_labels needs a teacher"),
        ({"objective": []}, "expected at least one objective"),
    ],
)
def test_bad_settings_are_refused_before_a_step(make, tokenizer, corpus, options, message):
    student = make()
    before = weights(student)
    given = {"objective": [CrossEntropy()], "steps": 3, **QUIET} | options
    with pytest.raises(probes.InputError, match=message):
        train(student, tokenizer, corpus, **given)
    assert same(before, weights(student))


def test_bad_text_is_refused_before_a_step(make, tokenizer, corpus):
    with pytest.raises(probes.InputError, match="at least one row, found none"):
        train(make(), tokenizer, corpus.select([]), objective=[CrossEntropy()], steps=1, **QUIET)
    dev = corpus.filter(lambda row: row["split"] == "dev")
    with pytest.raises(probes.InputError, match=r"no row of split 'train', only of 'dev'"):
        train(make(), tokenizer, dev, objective=[CrossEntropy()], steps=1, **QUIET)
    other = corpus.map(lambda row: {"label": "w" + row["label"]})
    with pytest.raises(probes.InputError, match=r"label 'wx' is no class of model"):
        train(make(), tokenizer, other, objective=[CrossEntropy()], steps=1, **QUIET)
    with pytest.raises(probes.InputError, match="needs labels, the data has none"):
        train(make(), tokenizer, corpus.remove_columns("label"), objective=[CrossEntropy()], steps=1, **QUIET)


def test_a_copy_is_what_compressions_train(make, tokenizer, corpus):
    model = make()
    before = weights(model)
    train(copy.deepcopy(model), tokenizer, corpus, objective=[CrossEntropy()], steps=2, **QUIET)
    assert same(before, weights(model))


def test_long_texts_are_cut_at_the_positions_that_a_model_can_use(tiny_models, make_tokenizer, corpus):
    # RoBERTa counts positions from its padding index on, so two of its 20 are never used.
    student = tiny_models("RobertaForSequenceClassification", max_position_embeddings=20)
    student.config.id2label = {0: "x", 1: "y", 2: "z"}
    long = corpus.map(lambda row: {"text": " ".join([row["text"]] * 9)})
    train(student, make_tokenizer(limit=64), long, objective=[CrossEntropy()], steps=1, **QUIET)


# Two processes: trainings of classifiers, of a model of masked tokens, and of a decoder
OF_BERT = ["all", "learned", "outputs", "weights", "prune", "settings", "dropped", "hard"]
MASKED, CODED = ["packed", "detected"], ["differentiable", "curriculum"]
SPEAKING = ["replaced", "rewarded", "noise", "against"]


def everything(given, out):
    """Trainings of which each process writes weights and history; as many processes as run this give the same."""
    corpus = probes.load_corpus(given / "corpus.csv")
    rank = os.environ.get("RANK", "0")

    def accuracy(model):
        return {"size": float(model.classifier.weight.detach().abs().sum())}

    several = corpus.to_pandas()
    several = several[several["split"] == "train"].assign(labels=["x y", "y", "y z x", "z x", "x y", "z"] * 6)
    several = datasets.Dataset.from_pandas(
        several.assign(text_pair="the dog").drop(columns="split"), preserve_index=False
    )

    def run(name, *objectives, of="student", on=corpus, **settings):
        student, tokenizer = probes.load_checkpoint(given / of)
        teacher = probes.load_checkpoint(given / "teacher")[0] if of == "student" else None
        settings = {"objective": objectives, "teacher": teacher, "steps": 3, "progress": False} | settings
        settings = {"learning_rate": 1e-4} | settings
        if name == "prune":
            student = prune(student, sparsity=0.5, train=corpus, tokenizer=tokenizer, **settings)
            history = student.history
        else:
            history = train(student, tokenizer, on, **settings)
        learned = {
            f"{o.name}/{k}": v for o in objectives if isinstance(o, Remembers) for k, v in weights(o.module).items()
        }
        save_file(weights(student) | learned, out / f"{name}-{rank}.safetensors")
        history.to_csv(out / f"{name}-{rank}.csv", index=False)

    teacher, _ = probes.load_checkpoint(given / "teacher")
    every = [CrossEntropy(), SoftLabels(), HiddenStates(), Attentions(), CrossCorrelation(), AttentionOutputs()]
    # Of 36 rows, batches of 5 are no equal parts, and the last one of an epoch is a single text.
    options = {"batch_size": 5, "accumulate": 3, "folder": out / "folder", "save_every": 2, "progress": True}
    run("all", *every, AlignedWeights(teacher), steps=4, **options)
    run("learned", Remembers(), CrossEntropy(), steps=4, batch_size=5, accumulate=2)
    # Adversaries, groups, pairs and candidates: all that they learn or draw is of the whole batch.
    hard = [Robust(CrossEntropy()), Robust(CrossEntropy(), method="p-dro", fitted=3, name="generated")]
    hard += [Robust(CrossEntropy(), method="group-dro", groups="label", name="grouped")]
    labelled = [PairSupCon(positive="x"), SupCLSeq(rates=(0.0,)), CandidateLabels(), *hard]
    run("hard", *labelled, on=several, batch_size=6, steps=8)
    run("outputs", AttentionOutputs())  # of which no output of the model is a part
    run("weights", AlignedWeights(teacher, form="frobenius"))
    settings = {"criterion": "movement", "schedule": "cubic", "prunings": 2, "evaluate": accuracy}
    run("prune", CrossEntropy(), steps=4, **settings)
    how = {"warmup": 0.4, "weight_decay": 0.3, "scheduler": "cosine", "betas": (0.8, 0.9), "max_grad_norm": 0.05}
    run("settings", CrossEntropy(), steps=5, batch_size=5, max_length=5, learning_rate=3e-4, **how)
    # Rows of several texts, each read as if alone; masks are drawn by row.
    run("packed", LanguageModel(packed=True), of="masked", steps=4, batch_size=3, max_length=20, warmup=0.3)
    # Noise is drawn for the whole batch; the first leaves the output layer out.
    run("noise", NoiseContrast(noise="bigram", k=3), of="speaker", batch_size=5)
    run("against", SentenceContrast(k=2), of="speaker", batch_size=5)
    # What is said of words not read yet is mixed into what is read, of the whole batch in each process.
    for name in CODED:
        run(name, CodedTokens(mixture=name, batches=2), of="coded", batch_size=5, learning_rate=1e-3)
    # The generator reads and changes the whole of every batch.
    detected = ReplacedTokens(masked=0.4, size=0.5)
    run("detected", detected, of="masked", batch_size=5, on=corpus.remove_columns("label"))
    run("dropped", CrossEntropy(), steps=3, batch_size=5, gradients=GradDrop(0.5, strict=True))
    # Words by the model itself, of a batch of which each process runs a part.
    words = NearestWords("static", 0.4, own_words=0.4)
    run("replaced", LanguageModel(), of="speaker", batch_size=5, replace_words=words)
    run("rewarded", SimilarityReward(given / "teacher", references="text", length=3), of="speaker", batch_size=5)
    with pytest.raises(probes.InputError, match="step 2: the objective 'spoilt' is nan"):
        run("spoilt", CrossEntropy(), Spoils(2))
    # No text at all: noise, levels and weights of guidance are drawn for the whole batch.
    how = {"steps": [4, 2], "updates": 4, "batch_size": 5, "learning_rate": 1e-3, "progress": False}
    fast = distill_diffusion(tiny(), rows(36), **how)
    save_file(weights(fast), out / f"diffusion-{rank}.safetensors")
    fast.history.to_csv(out / f"diffusion-{rank}.csv", index=False)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, make_tokenizer, tiny_models):
    """What `everything` wrote: in one process, and in two under torchrun with what they printed."""
    given, one, two = (tmp_path_factory.mktemp(name) for name in ("given", "one", "two"))
    settings = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "id2label": dict(enumerate("xyz"))}
    model = tiny_models("BertForSequenceClassification", **settings)
    for name in ("student", "teacher"):
        model.save_pretrained(given / name)
        make_tokenizer().save_pretrained(given / name)
        with torch.no_grad():
            for parameter in model.parameters():  # those of the teacher
                parameter.add_(0.1 * torch.randn_like(parameter))
    speaking = masking(make_tokenizer)
    masked = of_masked_tokens(speaking, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    masked.save_pretrained(given / "masked")
    speaking.save_pretrained(given / "masked")
    speaker = tiny_models("LlamaForCausalLM", num_hidden_layers=1, pad_token_id=0)
    speaker.save_pretrained(given / "speaker")
    make_tokenizer().save_pretrained(given / "speaker")
    code_outputs(speaker, bits=7).save_pretrained(given / "coded")
    make_tokenizer().save_pretrained(given / "coded")
    make_corpus().to_pandas().to_csv(given / "corpus.csv", index=False)
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__, given, two],
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    everything(given, one)
    return given, one, two, done.stderr


@pytest.mark.parametrize("name", [*OF_BERT, *MASKED, *CODED, *SPEAKING])
def test_two_processes_train_as_one_does(two_processes, name):
    given, one, two, _ = two_processes
    expected, *found = (load_file(p / f"{name}-{r}.safetensors") for p, r in ((one, 0), (two, 0), (two, 1)))
    assert same(found[0], found[1])
    # Softmax does not see the biases of keys: their gradients are rounding, which Adam takes for a direction.
    real = {k: v for k, v in expected.items() if not k.endswith("key.bias")}
    kinds = {"masked": MASKED, "coded": CODED, "speaker": SPEAKING}
    of = next((kind for kind, names in kinds.items() if name in names), "student")
    assert len(real) == len(expected) - {"masked": 2, "coded": 0, "speaker": 0, "student": 3}[of]
    assert same(real, {k: found[0][k] for k in real}, atol=1e-6)
    assert same(expected, found[0], atol=1e-4)
    given = load_file(given / of / "model.safetensors")
    assert not same(given, expected, atol=1e-4)  # they were trained
    expected, *found = (pd.read_csv(p / f"{name}-{r}.csv") for p, r in ((one, 0), (two, 0), (two, 1)))
    pd.testing.assert_frame_equal(found[0], found[1])
    pd.testing.assert_frame_equal(found[0], expected, rtol=1e-4, atol=1e-6)


def test_two_processes_distil_a_denoiser_as_one_does(two_processes):
    _, one, two, _ = two_processes
    names = [(p, f"diffusion-{r}") for p, r in ((one, 0), (two, 0), (two, 1))]
    expected, *found = (load_file(p / f"{name}.safetensors") for p, name in names)
    assert same(found[0], found[1])
    assert same(expected, found[0], atol=1e-5)
    assert not same(expected, weights(tiny()), atol=1e-4)
    expected, *found = (pd.read_csv(p / f"{name}.csv") for p, name in names)
    pd.testing.assert_frame_equal(found[0], found[1])
    pd.testing.assert_frame_equal(found[0], expected, rtol=1e-4, atol=1e-6)


def test_of_two_processes_one_writes_and_shows_progress(two_processes):
    _, one, two, printed = two_processes
    folders = [sorted(p.name for p in (x / "folder").iterdir()) for x in (one, two)]
    assert folders == [["checkpoint-2", "checkpoint-4", "training.json"]] * 2
    assert len(list((two / "folder" / "checkpoint-4").glob("rng_state_*"))) == 2  # it was two that trained
    histories = [pd.read_json(x / "folder" / "checkpoint-4" / "history.json") for x in (one, two)]
    pd.testing.assert_frame_equal(*histories, rtol=1e-4, atol=1e-6)
    assert histories[0]["step"].tolist() == [1, 2, 3, 4]
    assert printed.count("| 0/4 ") == 1


if __name__ == "__main__":
    everything(Path(sys.argv[1]), Path(sys.argv[2]))
