"""Fewer or narrower layers that learn from a teacher.

`distill` is the verb; `kept_layers` and `width` make the student, `match_layers` says which layers
belong together. `diffusion` makes denoisers of anything faster: `denoisers` says what one is and keeps
it, `samples` are what it makes.
"""
