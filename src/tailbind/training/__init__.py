"""Training networks: losses, weights, schedules and the loop. Losses, optimizers and schedules by name."""

from tailbind.options import Registry

LOSSES = Registry(
    "loss",
    {
        "mse": "tailbind.training.losses:WeightedMse",
        "focal": "tailbind.training.losses:FocalMse",
        "tobit": "tailbind.training.losses:Tobit",
        "censored_mse": "tailbind.training.losses:CensoredMse",
        "huber": "tailbind.training.losses:Huber",
        "bounded_focal": "tailbind.training.losses:BoundedFocal",
        "balanced_mse": "tailbind.training.batch_losses:BalancedMse",
        "concordant": "tailbind.training.batch_losses:Concordant",
        "ranked": "tailbind.training.batch_losses:Ranked",
    },
)
OPTIMIZERS = Registry(
    "optimizer",
    {"adam": "tailbind.training.schedule:Adam", "adamw": "tailbind.training.schedule:AdamW"},
)
SCHEDULES = Registry(
    "schedule",
    {
        "constant": "tailbind.training.schedule:Constant",
        "plateau": "tailbind.training.schedule:Plateau",
        "cosine_restarts": "tailbind.training.schedule:CosineRestarts",
        "one_cycle": "tailbind.training.schedule:OneCycle",
    },
)
