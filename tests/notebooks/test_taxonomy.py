"""The page of the families: every call on it exists and takes what it is given, and its table is that of the study."""

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from compress.pruning.criteria import SCOPES
from compress.pruning.drop_layers import drop_layers
from compress.pruning.structure import IMPORTANCE
from compress.quantization.backends import BACKENDS
from compress.quantization.fitted import METHODS
from compress.quantization.quantizers import RANGES
from compress.training.loop import train
from compress.training.settings import FIELDS

TOP = Path(__file__).parents[2]
PAGE = (TOP / "notebooks/guide/taxonomy.md").read_text(encoding="utf-8")
CODE = sorted({code for code in re.findall(r"`([^`]+)`", PAGE) if re.match(r"(compress|probes)\.", code)})
KNOWN = {"model", "tokenizer", "train", "few", "some", "untrained", "how", "trained", "lstm", "student", "folder"}
KNOWN |= {"decoder", "encoder", "denoiser", "data", "before", "after", "states", "corpus", "compress", "probes", "type"}
CHOICES = {"criterion": SCOPES, "ranges": RANGES, "backend": BACKENDS, "scope": ("matrix", "global", "unit")}


@pytest.fixture(scope="module")
def families():
    spec = importlib.util.spec_from_file_location("taxonomy_families", TOP / "notebooks/studies/taxonomy_families.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["taxonomy_families"] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


def named(path):
    """What a public name stands for."""
    package, *rest = path.split(".")
    out = importlib.import_module(package)
    for name in rest:
        out = getattr(out, name)
    return out


def problems(code):
    """What of a call does not exist."""
    for node in ast.walk(ast.parse(code, mode="eval")):
        if isinstance(node, ast.Name) and node.id not in KNOWN:
            yield f"{code}: {node.id} is not said on the page"
        if not isinstance(node, ast.Call):
            continue
        try:
            called = named(ast.unparse(node.func))
        except (AttributeError, ImportError):
            yield f"{code}: no {ast.unparse(node.func)}"
            continue
        parameters = inspect.signature(called).parameters
        free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        further = {*inspect.signature(train).parameters, *FIELDS} if free else set()
        for keyword in (k for k in node.keywords if k.arg is not None):
            if keyword.arg not in {*parameters, *further, *_of_verb(called)}:
                yield f"{code}: {ast.unparse(node.func)} takes no {keyword.arg}"
            if keyword.arg in CHOICES and ast.literal_eval(keyword.value) not in CHOICES[keyword.arg]:
                yield f"{code}: {ast.unparse(keyword)} is no choice"
        if called is not type:
            positional = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
            if len(node.args) > len(positional):
                yield f"{code}: {ast.unparse(node.func)} takes {len(positional)} by place"


def _of_verb(recipe):
    """What a recipe hands on to its verb."""
    module = sys.modules[recipe.__module__]
    if ".recipes." not in module.__name__:
        return set()
    verbs = [
        getattr(module, name) for name in ("prune", "quantize", "product_quantize", "distill") if hasattr(module, name)
    ]
    return {name for verb in verbs for name in inspect.signature(verb).parameters}


def test_every_call_on_the_page_exists():
    assert len(CODE) > 80
    assert [problem for code in CODE for problem in problems(code)] == []


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("compress.squeeze(model)", "no compress.squeeze"),
        ("compress.prune(model, sparseness=0.5)", "compress.prune takes no sparseness"),
        ('compress.prune(model, sparsity=0.5, criterion="size")', "is no choice"),
        ("compress.fuse(model, 0.5)", "takes 1 by place"),
        ("compress.fuse(whole)", "whole is not said on the page"),
    ],
)
def test_a_call_that_does_not_exist_is_seen(code, problem):
    assert problem in "; ".join(problems(code))


def test_importances_and_methods_on_the_page_are_choices():
    found = {key: set(re.findall(rf'\b{key}="(\w+)"', PAGE)) for key in ("importance", "method")}
    assert found["importance"] <= {*IMPORTANCE, "removal", "effect", "similarity"}
    assert {"removal", "effect", "similarity"} <= set(re.findall(r'"(\w+)":', inspect.getsource(drop_layers)))
    assert found["method"] <= {*METHODS, "svd", "activation", "tensor_train"}


def test_every_part_has_a_member_or_says_why_not_and_stands_on_the_page(families):
    for family, parts in families.FAMILIES.items():
        section = PAGE.split(f"\n## {family}\n")[1].split("\n## ")[0]
        for part in parts:
            assert part.calls or part.not_here, part.name
            row = next(line for line in section.splitlines() if line.startswith(f"| {part.name} |"))
            assert all(f"`{call}`" in row for call in part.calls), part.name
            assert part.not_here in row
            assert all(f"`{name}`" in section for name in part.names)


def test_the_table_is_that_of_the_study_and_of_the_calls_that_are_there(families):
    table = pd.read_csv(TOP / "notebooks/studies/taxonomy.csv")
    assert dict(zip(table["member"], table["call"], strict=True)) == families.MEMBERS
    rows = [line.split(" | ") for line in PAGE.split("## What they cost and keep")[1].splitlines() if "`" in line]
    shown = {row[0].removeprefix("| "): row for row in rows if row[0].startswith("| ")}
    assert set(table["member"]) <= shown.keys()
    for _, one in table.iterrows():
        assert f"{one['stored_bytes'] / 1e6:.2f}" == shown[one["member"]][2]
        for name, at in (("retrieval", 4), ("accuracy", 6)):
            assert float(shown[one["member"]][at]) == pytest.approx(one[name], abs=6e-4)
    listed = {call for parts in families.FAMILIES.values() for part in parts for call in part.calls}
    assert set(families.MEMBERS.values()) - listed <= {"model", *LEFT}


# Measured beside the others, of no family by themselves: the control, and further settings of a call that is listed.
LEFT = {
    'compress.prune(model, sparsity=0.6, criterion="random")',
    "compress.recipes.magnitude_pruning(model, tokenizer, train, sparsity=0.6, **trained)",
    "compress.quantize(model, bits=3)",
    "compress.product_quantize(model, codes=256, block=8)",
}


def test_the_page_is_in_the_navigation_and_its_links_lead_to_files():
    assert "notebooks/guide/taxonomy.md" in (TOP / "notebooks/mkdocs.yml").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE.replace("\n", " ")) if "://" not in link]
    assert len(links) >= 4
    assert all((TOP / "notebooks/guide" / link).is_file() for link in links)
