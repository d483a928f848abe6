"""Models, by name. Importing this imports none of them."""

from tailbind.options import Registry

MODELS = Registry("model", {"mlp": "tailbind.models.mlp:Mlp"})
