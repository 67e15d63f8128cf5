"""Other packages' chatter off: before they are imported, and while they load or save.

Imported first: transformers imports torchao where it is installed, which says what it lacks for
other machines.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

for name in ("bitsandbytes", "torchao", "torch.utils._pytree"):
    logging.getLogger(name).setLevel(logging.ERROR)


class quiet:
    """Silence transformers' bars and its table of unexpected keys while it loads or saves; what
    matters is checked.
    """

    def __enter__(self) -> None:
        import transformers  # after the lines above

        self.level = transformers.logging.get_verbosity()
        self.bars = transformers.utils.logging.is_progress_bar_enabled()
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        import transformers

        transformers.logging.set_verbosity(self.level)
        if self.bars:
            transformers.utils.logging.enable_progress_bar()


@contextmanager
def no_graphs_printed() -> Iterator[None]:
    """Keep torch's export to ONNX from printing the whole graph of a model where it fails."""
    import torch

    said = torch._C._jit_onnx_log  # its own switch is turned on in every export
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = said
