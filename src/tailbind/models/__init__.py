"""Models, by name: each entry is the options, whose `build` gives an untrained model. Imports none of them."""

from tailbind.options import Registry

MODELS = Registry("model", {"mlp": "tailbind.models.mlp:Mlp"})
