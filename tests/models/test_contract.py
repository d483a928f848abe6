"""Whatever predicts keeps the one contract."""

from tailbind.models import MODELS
from tailbind.models.baselines import Ridge, SourceMean, TrainingMean
from tailbind.models.contract import ClosedForm, Predictive


def test_every_registered_model_builds_one_that_predicts_and_is_rebuilt_from_its_state() -> None:
    for name in MODELS:
        options = MODELS.load(name)
        assert isinstance(options().build(3, seed=0), Predictive)
        assert callable(options.from_state)


def test_the_baselines_learn_in_one_call() -> None:
    for model in (Ridge(), SourceMean(), TrainingMean()):
        assert isinstance(model, ClosedForm)
