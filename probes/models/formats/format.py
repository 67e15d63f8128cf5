"""What a format says of itself: its key of config.json, what is done where a model is loaded, what
it forbids.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from probes.errors import InputError
from probes.forms import Form

# What can be forbidden. "compress": whatever works on the weights of a model; "narrow": to distil into fewer features.
Verb = Literal[
    "compress",
    "prune_heads",
    "prune_channels",
    "distill",
    "narrow",
    "sparsify_embeddings",
    "code_outputs",
    "onnxruntime",
    "torchao",
    "save packed",
]


@dataclass(frozen=True)
class Format:
    """A key of a model's configuration that plain transformers reads past, or that other packages
    act on.

    Attributes:
        key: in config.json.
        has: what a model with it has, in words.
        form: of what the configuration says, as `probes.forms.check_form` takes it.
        check: gets the configuration and what the checkpoint is called, before the weights are
            read; raises `InputError` where such a model cannot be loaded here.
        make: gets a freshly made model, before the weights: gives it the modules and shapes that
            they fit.
        apply: gets the model with its weights, and the names of those that were missing in the
            file; returns the names of those that it has filled.
        lacks: what of it a model has not got, in words; None where all of it is there.
        forbids: gets the model and what is to be done with it: why it cannot be, and what to do;
            None where it can.

    Example:
        >>> from transformers import BertConfig
        >>> heads = Format("heads_kept", "heads that were pruned", [int])
        >>> heads.promised(BertConfig()), heads.promised(BertConfig(heads_kept=[2, 1]))
        (False, True)
    """

    key: str
    has: str
    form: Form
    check: Callable[[PreTrainedConfig, str], None] = lambda config, name: None
    make: Callable[[PreTrainedModel], None] | None = None
    apply: Callable[[PreTrainedModel, Collection[str] | None], Collection[str]] | None = None
    lacks: Callable[[PreTrainedModel], str | None] = lambda model: None
    forbids: Callable[[PreTrainedModel, Verb], str | None] = lambda model, verb: None

    def said(self, config: Any) -> Any:
        """Return what a configuration says of it, None where nothing."""
        return getattr(config, self.key, None)

    def promised(self, config: Any) -> bool:
        """Whether a configuration says that its model has it."""
        return bool(self.said(config))

    def unknown(self, model: PreTrainedModel, name: str) -> InputError:
        """Return the error of a module that the configuration names and the model does not have."""
        return InputError(
            f"config.{self.key} names the module {name!r}, which {type(model).__name__} does not have: "
            "configuration and weights do not belong together"
        )

    def put_modules(
        self,
        model: PreTrainedModel,
        make: Callable[[str, nn.Module, Any], nn.Module],
        made: type[nn.Module] | tuple[type[nn.Module], ...],
    ) -> None:
        """Put other modules in the place of those that the configuration names.

        Args:
            model: it is changed.
            make: gets the name of a module, the module, and what the configuration says of it.
            made: the types of what is in its place already.

        Raises:
            InputError: the model does not have a module that is named; what `make` raises.
        """
        known = dict(model.base_model.named_modules())
        for name, settings in (self.said(model.config) or {}).items():
            if name not in known:
                raise self.unknown(model, name)
            if not isinstance(known[name], made):
                model.base_model.set_submodule(name, make(name, known[name], settings))
