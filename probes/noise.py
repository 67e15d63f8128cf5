"""Imported first: transformers imports torchao where it is installed, which says what it lacks for other machines."""

import logging

for name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(name).setLevel(logging.ERROR)
