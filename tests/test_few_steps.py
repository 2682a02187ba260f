"""Networks of few evaluations on Gaussian data, whose flow is known: every loss is zero, or the smallest possible, at the exact network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsdcast.nets.unet import UNet
from wsdcast.warmstart.few_steps import (
    HALVINGS,
    StepDraws,
    distillation_loss,
    draw_any_steps,
    draw_halved_steps,
    mean_flow_loss,
    shortcut_loss,
)
from wsdcast.warmstart.flow import Draws, draw, sample
from wsdcast.warmstart.paths import STRAIGHT, Path, Straight
from wsdcast.warmstart.prior import InformedPrior, frozen_prior
from wsdcast.warmstart.solvers import midpoint
from wsdcast.warmstart.times import uniform
from wsdcast.weather.samplers import few_sampler
from wsdcast.weather.trained import Trained

MEAN, STD = 0.4, 0.6  # of the data in normalised space
SHAPE = (64, 1, 4, 4)


def prior(samples: int = SHAPE[0]) -> InformedPrior:
    """A prior that is no standard normal, so that Eqs. 2 and 3 are at work."""
    return InformedPrior(torch.full((samples, *SHAPE[1:]), 3.0), torch.full((samples, *SHAPE[1:]), 0.5))


def data(random: torch.Generator) -> Tensor:
    """Draws whose normalised values have mean :data:`MEAN` and standard deviation :data:`STD`."""
    return prior().denormalise(MEAN + STD * torch.randn(SHAPE, generator=random, dtype=torch.float64))


def context(samples: int = SHAPE[0]) -> Tensor:
    return torch.zeros(samples, 1, *SHAPE[2:], dtype=torch.float64)


def level(t: Tensor) -> Tensor:
    """The standard deviation of the state at time t of the straight path."""
    return (t**2 * STD**2 + (1 - t) ** 2).sqrt()


def flow_map(x: Tensor, t: Tensor, d: Tensor) -> Tensor:
    """Where the exact flow ends at time t + d."""
    return (t + d) * MEAN + level(t + d) / level(t) * (x - t * MEAN)


class Exact(nn.Module):
    """The mean velocity of the exact flow; without a length, or with length 0, its velocity. ``error`` is added to it."""

    def __init__(self, error: float = 0.0) -> None:
        super().__init__()
        self.error = nn.Parameter(torch.tensor(error, dtype=torch.float64))

    def forward(self, inputs: Tensor, t: Tensor, warmth: Tensor, d: Tensor | None = None) -> Tensor:
        assert (warmth == 1).all()
        x, t = inputs[:, :1], t.to(inputs).reshape(-1, 1, 1, 1)
        velocity = MEAN + (t * STD**2 - (1 - t)) / level(t) ** 2 * (x - t * MEAN)
        if d is None:
            return velocity + self.error
        d = d.to(inputs).reshape(-1, 1, 1, 1)
        length = torch.where(d == 0, 1.0, d)  # no division by zero in the branch that is not taken
        return torch.where(d == 0, velocity, (flow_map(x, t, length) - x) / length) + self.error


def draws(random: torch.Generator) -> Draws:
    return Draws(*(drawn.double() for drawn in draw(SHAPE, random)))


def test_steps_are_multiples_of_their_length_and_all_lengths_are_equally_frequent():
    t, d = draw_halved_steps(8000, torch.Generator().manual_seed(0))
    assert ((t / d) % 1 == 0).all()
    assert (t + d <= 1).all()
    lengths, counts = d.unique(return_counts=True)
    assert lengths.tolist() == [0.5**halvings for halvings in range(HALVINGS, -1, -1)]
    assert (counts / 8000 - 0.25).abs().max() < 0.02
    t, d = draw_any_steps(8000, torch.Generator().manual_seed(0))
    assert (d >= 0).all()
    assert (t >= 0).all()
    assert (t + d <= 1).all()
    assert abs(d.mean().item() - 1 / 3) < 0.01  # the mean distance of two uniform draws


def test_two_half_steps_of_the_exact_network_are_one_step():
    random = torch.Generator().manual_seed(1)
    d = torch.tensor([1.0, 0.5, 0.25, 0.25], dtype=torch.float64).repeat(16)
    steps = StepDraws(torch.tensor([0.0, 0.5, 0.25, 0.75], dtype=torch.float64).repeat(16), d)
    arguments = prior(), context(), data(random), draws(random), steps
    assert shortcut_loss(Exact(), Exact(), *arguments, flow_samples=0) < 1e-20
    torch.testing.assert_close(shortcut_loss(Exact(0.3), Exact(), *arguments, flow_samples=0).item(), 0.09)


def test_half_steps_in_bfloat16_are_averaged_in_the_precision_of_the_state():
    """The mean of 1 and the next larger number of bfloat16 is between them, and rounded to one of them it would be an error."""
    velocities = iter((1.0, 1.0 + 2**-7))

    def teacher(inputs: Tensor, t: Tensor, warmth: Tensor, d: Tensor) -> Tensor:
        return torch.full_like(inputs[:, :1], next(velocities), dtype=torch.bfloat16)

    def network(inputs: Tensor, t: Tensor, warmth: Tensor, d: Tensor) -> Tensor:
        return torch.full_like(inputs[:, :1], 1.0 + 2**-8)

    random = torch.Generator().manual_seed(1)
    steps = StepDraws(*(x.double() for x in draw_halved_steps(SHAPE[0], random)))
    assert shortcut_loss(network, teacher, prior(), context(), data(random), draws(random), steps, flow_samples=0) == 0


def test_halves_of_the_shortest_step_are_those_of_the_flow():
    random = torch.Generator().manual_seed(2)
    d = torch.full((SHAPE[0],), 0.5**HALVINGS, dtype=torch.float64)
    steps = StepDraws(torch.full_like(d, 0.5), d)
    noise_and_times, target = draws(random), data(random)
    x, _ = STRAIGHT.point(noise_and_times.noise, prior().normalise(target), steps.t)
    teacher, one, half = Exact(), torch.ones(1), d[0] / 2
    begin = teacher(x, torch.tensor([0.5]), one)
    end = teacher(x + half * begin, torch.tensor([0.5 + half]), one)
    expected = (teacher(x, steps.t, one, d) - (begin + end) / 2).square().mean()
    loss = shortcut_loss(Exact(), teacher, prior(), context(), target, noise_and_times, steps, flow_samples=0)
    torch.testing.assert_close(loss, expected)
    assert loss > 1e-8  # two steps of Euler's method are not the flow


def test_the_shares_of_flow_matching_and_of_half_steps_are_those_of_their_samples():
    random = torch.Generator().manual_seed(3)
    arguments = prior(), context(), data(random), draws(random), StepDraws(*(x.double() for x in draw_halved_steps(SHAPE[0], random)))
    network, teacher = Exact(0.2), Exact()
    parts = [shortcut_loss(network, teacher, *arguments, flow_samples=count) for count in (SHAPE[0], 0, 48)]

    def share(chosen: slice, flow_samples: int) -> Tensor:
        (_, _, target, drawn, steps), count = arguments, len(range(*chosen.indices(SHAPE[0])))
        of_count = prior(count), context(count), target[chosen], drawn.of(chosen), steps.of(chosen)
        return shortcut_loss(network, teacher, *of_count, flow_samples)

    torch.testing.assert_close(parts[2], (48 * share(slice(48), 48) + 16 * share(slice(48, None), 0)) / 64)


def test_mean_flow_of_the_exact_network_is_as_good_as_its_velocity():
    random = torch.Generator().manual_seed(4)
    target, drawn = data(random), draws(random)
    steps = StepDraws(*(x.double() for x in draw_any_steps(SHAPE[0], random)))
    network = Exact()
    loss = mean_flow_loss(network, prior(), context(), target, drawn, steps, flow_samples=16)
    t = torch.cat([drawn.t[:16], steps.t[16:]])
    x, velocity = STRAIGHT.point(drawn.noise, prior().normalise(target), t)
    torch.testing.assert_close(loss, (network(x, t, torch.ones(1)) - velocity).square().mean())
    # A constant error e of the network is in u and, through the tangent of x, in d du/dt: there it is e d du/dx.
    d = torch.cat([torch.zeros(16), steps.d[16:]])
    shrinks = (level(t + d) / level(t) - 1).reshape(-1, 1, 1, 1)  # d du/dx of the exact flow
    for error in (0.5, -1.0):
        wrong = Exact(error)
        loss = mean_flow_loss(wrong, prior(), context(), target, drawn, steps, flow_samples=16)
        residual = network(x, t, torch.ones(1)) - velocity + error * (1 - shrinks)
        torch.testing.assert_close(loss, residual.square().mean())
        loss.backward()
        torch.testing.assert_close(wrong.error.grad, 2 * residual.mean())  # that of u alone: du/dt has no gradient


def drawn_in(count: int, noise: Tensor, path: Path = STRAIGHT) -> Tensor:
    """The sample of the exact network, which knows the length of its step, in so many steps."""
    networks = Trained(Exact(), None, lambda _: prior(), None, path, objective="mean-flow")  # type: ignore[arg-type]
    return few_sampler(networks, Exact(), count)(context(), noise)


def test_one_step_of_the_exact_network_ends_where_many_steps_of_the_flow_end():
    random = torch.Generator().manual_seed(5)
    noise = torch.randn(SHAPE, generator=random, dtype=torch.float64)
    many = sample(Exact(), lambda _: prior(), context(), noise, uniform(400), midpoint)
    exact = prior().denormalise(MEAN + STD * noise)
    torch.testing.assert_close(many, exact, rtol=0, atol=1e-5)
    for count in (1, 2, 8):
        few = drawn_in(count, noise)
        torch.testing.assert_close(few, exact, rtol=0, atol=1e-10)


def test_few_steps_follow_the_path_of_their_flow():
    class Twice(Straight):
        def velocity(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
            return 2 * output

    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    expected = prior().denormalise(noise + 2 * (MEAN + STD * noise - noise))
    few = drawn_in(1, noise, Twice())
    torch.testing.assert_close(few, expected)


class Line(nn.Module):
    """A student that is a line: a + b x."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros((), dtype=torch.float64)), nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, inputs: Tensor, t: Tensor, warmth: Tensor) -> Tensor:
        return self.a + self.b * inputs[:, :1]


def test_a_distilled_student_learns_the_exact_map():
    random, student = torch.Generator().manual_seed(6), Line()
    optimiser = torch.optim.Adam(student.parameters(), lr=0.1)
    for _ in range(150):
        noise = torch.randn(SHAPE, generator=random, dtype=torch.float64)
        optimiser.zero_grad()
        loss = distillation_loss(student, Exact(), prior(), context(), noise, 1, uniform(50), midpoint)
        loss.backward()
        optimiser.step()
    assert loss < 1e-6
    # The map x -> mean + std x is a velocity of mean + (std - 1) x over the whole step.
    torch.testing.assert_close(torch.stack([student.a, student.b]).tolist(), [MEAN, STD - 1], rtol=0, atol=1e-3)


def test_distillation_weighs_points_and_leaves_the_teacher_alone():
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    weights = torch.tensor([0.0, 0.0, 4.0, 0.0], dtype=torch.float64)[:, None]
    teacher, student = Exact(), Exact(0.5)
    loss = distillation_loss(student, teacher, prior(), context(), noise, 2, uniform(2), midpoint, weights)
    loss.backward()
    assert teacher.error.grad is None
    assert student.error.grad is not None
    of_row = distillation_loss(
        student, teacher, InformedPrior(prior().mean[..., 2:3, :], prior().std[..., 2:3, :]), context()[..., 2:3, :], noise[..., 2:3, :], 2,
        uniform(2), midpoint,
    )  # fmt: skip
    torch.testing.assert_close(loss, of_row)


def test_a_new_length_of_the_step_changes_no_bit_of_the_flow():
    torch.manual_seed(0)
    flow = UNet(3, 1, (8, 8), scalars=2)
    nn.init.normal_(flow.last.weight)
    nn.init.normal_(flow.middle.convolution2.weight)
    few = UNet(3, 1, (8, 8), scalars=3, silent=1)
    few.load_state_dict(few.state_dict() | flow.state_dict())
    x, t = torch.randn(2, 3, 8, 16), torch.rand(2)
    for d in (0.0, 0.125, 1.0):
        assert torch.equal(few(x, t, torch.ones(1), torch.full((2,), d)), flow(x, t, torch.ones(1)))
    # The length has a gradient, so training can use it.
    few(x, t, torch.ones(1), torch.full((2,), 0.5)).square().sum().backward()
    assert few.embeddings[2].layers[2].weight.grad.abs().max() > 0


def test_the_derivative_of_the_u_net_in_forward_mode_is_that_of_finite_differences():
    torch.manual_seed(0)
    network = UNet(2, 1, (8, 8), scalars=1).double()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    x, direction, t = torch.randn(3, 2, 8, 16).double(), torch.randn(3, 2, 8, 16).double(), torch.rand(3).double()
    _, derivative = torch.func.jvp(network, (x, t), (direction, torch.ones(3).double()))
    step = 1e-6
    difference = (network(x + step * direction, t + step) - network(x - step * direction, t - step)) / (2 * step)
    torch.testing.assert_close(derivative, difference, rtol=1e-4, atol=1e-4)


def test_samples_of_a_slice_are_those_of_the_whole_prior():
    whole = frozen_prior(lambda c: (c, c.abs() + 1))(torch.arange(12.0).reshape(3, 4))
    part = whole.of(slice(1, 3))
    assert torch.equal(part.mean, whole.mean[1:])
    assert torch.equal(part.std, whole.std[1:])
