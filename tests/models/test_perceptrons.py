"""Perceptrons computed at once: what PyTorch's own modules compute one after the other."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tailbind.models.ensemble import EnsembleMlp
from tailbind.models.layers import is_perceptron
from tailbind.models.mlp import Mlp, layers_of
from tailbind.models.perceptrons import Perceptrons
from tailbind.models.rooms import Draws
from tailbind.models.together import AT_ONCE, Alone, Stacked, computes_alike, together

SHAPES = {
    "v2": Mlp((8, 5, 4)),
    "v1": Mlp((6, 4), "relu", "default"),
    "without norm": Mlp((7, 3), "silu", "default", batch_norm=False, dropout=0.1),
    "linear": Mlp((4,), "gelu", batch_norm=False, dropout=0.0),
}


def built(options: Mlp, members: int = 3, n_features: int = 6) -> list[nn.Sequential]:
    """Return perceptrons in double precision, BatchNorm's weights as after some training."""
    torch.manual_seed(0)
    made = [layers_of(options.member(n_features, 0)).double() for _ in range(members)]
    for one in made:
        for module in one:
            if isinstance(module, nn.BatchNorm1d):
                nn.init.uniform_(module.weight, 0.5, 2.0)
                nn.init.normal_(module.bias)
                nn.init.normal_(module.running_mean)
    return made


def draws(n: int) -> list[Draws]:
    return [Draws(torch.Generator().manual_seed(seed)) for seed in range(n)]


def gradients_of(one: nn.Sequential) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in one.parameters() if parameter.grad is not None])


@pytest.mark.parametrize("name", SHAPES)
def test_what_the_modules_compute(name: str) -> None:
    """Without dropout: outputs, gradients and running statistics of every member."""
    plain = built(SHAPES[name])
    for one in plain:
        for module in one:
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    stacked = copy.deepcopy(plain)
    perceptrons = Perceptrons(stacked)
    X = torch.randn(3, 20, 6, dtype=torch.float64, requires_grad=True)
    outputs = perceptrons.outputs(X.detach(), draws(3))
    wanted = torch.stack([one.train()(of) for one, of in zip(plain, X, strict=True)])
    assert torch.allclose(outputs, wanted, atol=1e-12)
    into = torch.randn_like(outputs)
    to_X, to_weights = perceptrons.gradients(into.clone(), to_inputs=True)
    (to_X_plain,) = torch.autograd.grad(wanted, [X], into, retain_graph=True)
    wanted.backward(into)
    assert torch.allclose(to_X, to_X_plain, atol=1e-12)
    for gradient, one, same in zip(to_weights, plain, stacked, strict=True):
        assert torch.allclose(gradient, gradients_of(one), atol=1e-12)
        for (key, value), other in zip(one.state_dict().items(), same.state_dict().values(), strict=True):
            assert torch.allclose(value, other, atol=1e-12), key


@pytest.mark.parametrize("name", ["v2", "without norm"])
def test_gradients_with_dropout(name: str) -> None:
    """Finite differences, with the same draws each time."""
    perceptrons = Perceptrons(built(SHAPES[name], members=2))
    X = torch.randn(2, 7, 6, dtype=torch.float64)

    into = torch.randn(2, 7, 1, dtype=torch.float64)

    def value() -> float:
        return float((perceptrons.outputs(X, draws(2)) * into).sum())

    perceptrons.outputs(X, draws(2))
    to_X, to_weights = perceptrons.gradients(into.clone(), to_inputs=True)
    assert to_X is not None
    to_weights = [gradient.clone() for gradient in to_weights]
    rng = np.random.default_rng(0)
    for tensor, gradient in [(X, to_X), *((w.data, g) for w, g in zip(perceptrons.weights, to_weights, strict=True))]:
        flat = tensor.view(-1)
        for place in rng.choice(len(flat), size=min(40, len(flat)), replace=False):
            before = float(flat[place])
            values = []
            for step in (1e-6, -1e-6):
                flat[place] = before + step
                values.append(value())
            flat[place] = before
            slope = (values[0] - values[1]) / 2e-6
            assert float(gradient.reshape(-1)[place]) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_dropout_leaves_out_its_share() -> None:
    """Of each unit and row, with what stays scaled up; each member draws from its own stream."""
    layers = [nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 64)) for _ in range(2)]
    for one in layers:
        nn.init.zeros_(one[0].weight)
        nn.init.ones_(one[0].bias)
        nn.init.eye_(one[3].weight)
        nn.init.zeros_(one[3].bias)
    outputs = Perceptrons(layers).outputs(torch.zeros(2, 5_000, 1), draws(2))
    assert outputs.unique().tolist() == [0.0, pytest.approx(1 / (1 - round(0.3 * 65_536) / 65_536), rel=1e-6)]
    left_out = (outputs == 0).double()
    assert float(left_out.mean()) == pytest.approx(0.3, abs=0.003)  # 640,000 draws: 5 SE
    assert float((left_out.mean(dim=1) - 0.3).abs().max()) < 5 * np.sqrt(0.21 / 5_000)
    assert float((left_out.mean(dim=2) - 0.3).abs().max()) < 5.5 * np.sqrt(0.21 / 64)
    a, b = left_out - 0.3
    assert abs(float((a * b).mean()) / 0.21) < 5 / np.sqrt(a.numel())
    neighbours = (a[:, 1:] * a[:, :-1]).mean() / 0.21
    assert abs(float(neighbours)) < 5 / np.sqrt(a.numel())


def test_a_member_alone_is_the_same() -> None:
    """Outputs, and how far its draws have come, whoever is beside it."""
    options = SHAPES["v2"]
    X = torch.randn(3, 9, 6, dtype=torch.float64)
    at_once, alone = built(options), built(options)
    drawing, drawing_alone = draws(3), draws(3)
    outputs = Perceptrons(at_once).outputs(X, drawing)
    for number, one in enumerate(alone):
        own = Perceptrons([one]).outputs(X[number : number + 1], drawing_alone[number : number + 1])
        assert torch.allclose(own[0], outputs[number], atol=1e-12)
        assert torch.equal(drawing[number].bits(9), drawing_alone[number].bits(9))


def test_modules_see_the_weights() -> None:
    """What is changed in the vector is changed in the module, and the other way round; also by loading a state."""
    (one,) = built(SHAPES["v2"], members=1)
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    perceptrons = Perceptrons([one])
    assert list(one.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in one.state_dict().items())
    with torch.no_grad():
        perceptrons.weights[0].zero_()
    assert all(float(parameter.detach().abs().sum()) == 0 for parameter in one.parameters())
    one.load_state_dict(before)
    assert float(perceptrons.weights[0].detach().abs().sum()) == pytest.approx(
        sum(float(parameter.detach().abs().sum()) for parameter in one.parameters())
    )


def test_a_bias_before_a_norm_stays() -> None:
    """The norm takes it out again, so its gradient is 0 itself, not what rounding makes of it."""
    (one,) = built(SHAPES["v2"], members=1)
    perceptrons = Perceptrons([one])
    outputs = perceptrons.outputs(torch.randn(1, 9, 6, dtype=torch.float64), draws(1))
    _, (gradient,) = perceptrons.gradients(2 * outputs, to_inputs=False)
    names = [name for name, _ in one.named_parameters()]
    pieces = dict(zip(names, gradient.split([p.numel() for p in one.parameters()]), strict=True))
    assert [name for name, piece in pieces.items() if not piece.any()] == ["0.bias", "4.bias", "8.bias"]


def test_a_norm_of_one_row_is_refused() -> None:
    perceptrons = Perceptrons(built(SHAPES["v2"], members=1))
    with pytest.raises(ValueError, match="two rows or more"):
        perceptrons.outputs(torch.randn(1, 1, 6, dtype=torch.float64), draws(1))


def test_what_is_no_perceptron() -> None:
    """Anything else is trained by PyTorch's own means."""
    for layers in (
        nn.Linear(2, 1),
        nn.Sequential(),
        nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1)),
        nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1), nn.ReLU(), nn.Linear(2, 1)),
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, momentum=None), nn.ReLU(), nn.Linear(2, 1)),
        nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
        nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1)),
        nn.Sequential(nn.Linear(2, 2), nn.GELU(approximate="tanh"), nn.Linear(2, 1)),
        nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.ReLU(), nn.Linear(2, 1)),
        nn.Sequential(nn.Flatten(), nn.Linear(2, 1)),
    ):
        assert not is_perceptron(layers)


def test_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Perceptrons at once, as many groups as threads, also with embeddings before them; other members alone."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    sizes = {n: [len(group.members) for group in Mlp((4,), members=n).build(3, 0).together()] for n in (1, 2, 3, 8, 70)}
    assert sizes == {1: [1], 2: [1, 1], 3: [1, 2], 8: [4, 4], 70: [23, 23, 24]}
    assert max(sizes[70]) <= AT_ONCE
    sparse = Mlp((4,), members=2).build(3, 0, n_sparse=5).together()
    assert [type(group) for group in sparse] == [Stacked, Stacked]
    assert [tuple(p.shape) for (own,) in (group.parameters() for group in sparse) for p in own] == [(285,), (5, 64)] * 2
    others = together(EnsembleMlp(members=2).build(3, 0).members)
    assert [type(group) for group in others] == [Alone, Alone]
    assert not any(group.side_by_side for group in others)


@pytest.mark.parametrize("name", SHAPES)
def test_a_trial_of_the_step_written_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passed here; failed by what computes something else, or lacks a part. The layers stay as they were."""
    (layers,) = built(SHAPES[name], members=1)
    before = copy.deepcopy(layers.state_dict())
    assert computes_alike(layers)
    with monkeypatch.context() as patch:
        patch.setattr(
            Perceptrons, "outputs", lambda self, inputs, draws: torch.ones(1, len(inputs[0]), 1, dtype=inputs.dtype)
        )
        patch.setattr(Perceptrons, "gradients", lambda self, slope, to_inputs: (None, [self.weights[0].detach()]))
        assert not computes_alike(layers)

    def lacking(self: Perceptrons, inputs: Tensor, draws: object) -> Tensor:
        raise NotImplementedError("no such kernel")

    monkeypatch.setattr(Perceptrons, "outputs", lacking)
    assert not computes_alike(layers)
    assert all(torch.equal(value, before[key]) for key, value in layers.state_dict().items())
