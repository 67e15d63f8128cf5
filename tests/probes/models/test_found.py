"""What a checkpoint is, found without its weights."""

import probes
from probes.models.found import find


def test_what_was_found_is_what_is_loaded(folder):
    found = find(folder)
    model, tokenizer = probes.load_checkpoint(folder)
    assert (found.name, found.source, found.headless, found.adapter) == (str(folder), folder, (), None)
    assert found.config.architectures == [type(model).__name__]
    assert len(found.tokenizer) == len(tokenizer)
