"""The commands that make a model smaller: `python -m compress VERB`, `layerscope VERB`.

One file a family of verbs, with `add`, which gives its commands to a parser; `arguments` holds what
several share; `checking` says before any work what can be done.
"""
