"""How weights are trained further, or given back: `finetune`, `restore`.

Of `finetune`: `heads` makes a head where there is none, `chosen_layers` says which layers are
trained, `best` keeps the best step. Of `restore`: `given_back`, `ranks`, `same_places`.
"""
