"""What goes wrong because of what was given: one error and one warning, so that callers can tell them from defects."""


class InputError(ValueError):
    """Something that was given cannot be used; the message says what was expected, what was found and what to do."""


class LayerscopeWarning(UserWarning):
    """The run goes on, but a number is missing or needs care; the message says which and why."""
