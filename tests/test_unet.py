"""The U-Net: padding and attention on the sphere and on the plane, and its size."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from wsdcast.nets import sphere
from wsdcast.nets.unet import Attention, Convolution, ResidualBlock, ScalarEmbedding, UNet


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def trained(network: torch.nn.Module, random: torch.Generator) -> torch.nn.Module:
    """Return the network with random weights instead of zeros, as after training."""
    for parameter in network.parameters():
        if not parameter.any():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=random)
    return network.eval()


def neighbour(field: np.ndarray, row: int, column: int, includes_poles: bool) -> float:
    """Return the value at (row, column), which may lie beyond the grid's edges: across the poles or round the globe."""
    rows, columns = field.shape
    while not 0 <= row < rows:
        pole = (0 if row < 0 else rows - 1) if includes_poles else (-0.5 if row < 0 else rows - 0.5)
        row = round(2 * pole - row)
        column += columns // 2
    return field[row, column % columns]


@pytest.mark.parametrize("pad", [sphere.pad, sphere.gathered])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_padding_gives_the_neighbours_on_the_sphere(layout, pad):
    field = torch.arange(48.0).reshape(1, 2, 4, 6).contiguous(memory_format=layout)
    padded = pad(field)
    for channel in range(2):
        values = field[0, channel].numpy()
        expected = [[neighbour(values, row, column, False) for column in range(-1, 7)] for row in range(-1, 5)]
        np.testing.assert_array_equal(padded[0, channel].numpy(), expected)
    assert pad is sphere.gathered or padded.is_contiguous(memory_format=layout)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # torch's compiler instantiates it
def test_padding_is_one_look_up_for_a_compiler_and_its_gradient_copies_nothing():
    """The gradient is the one written by hand. That of a look-up would add numbers in an undefined order."""
    operations = []

    def record(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        operations.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return make_boxed_func(graph)

    field = torch.randn(1, 2, 4, 6, requires_grad=True)
    compiled = torch.compile(sphere.pad, backend=aot_autograd(fw_compiler=record), fullgraph=True)
    torch.testing.assert_close(compiled(field), sphere.pad(field), rtol=0, atol=0)
    weights = torch.randn(1, 2, 6, 8)
    (gradient,) = torch.autograd.grad(compiled(field), field, weights)
    (expected,) = torch.autograd.grad(sphere.pad(field), field, weights)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0)  # also added in the same order
    assert [name for name in operations if re.search("index|copy|clone|scatter", name)] == ["aten.index.Tensor"]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_padding_equals_finite_differences(layout):
    field = torch.randn(2, 3, 4, 6, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(sphere.pad, (field,))


@pytest.mark.parametrize("includes_poles", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(5, 6), (4, 8), (7, 12), (9, 10), (11, 4)])
def test_extension_gives_the_neighbours_on_the_sphere(rows, columns, includes_poles):
    field = torch.arange(float(rows * columns)).reshape(rows, columns)
    extended, original = sphere.extend(field, 8, includes_poles)
    assert all(size % 8 == 0 for size in extended.shape)
    least = 2 * includes_poles  # a row beyond each pole
    assert least <= extended.shape[0] - rows < 8 + least
    assert extended.shape[1] % 16 == 0  # so half a turn is a whole number of columns at every level
    assert 0 <= extended.shape[1] - columns < 16
    assert torch.equal(extended[original], field)
    north, west = original[0].start, original[1].start
    expected = [
        [neighbour(field.numpy(), row - north, column - west, includes_poles) for column in range(extended.shape[1])]
        for row in range(extended.shape[0])
    ]
    np.testing.assert_array_equal(extended.numpy(), expected)


@pytest.mark.parametrize(("rows", "multiple"), [(121, 1), (121, 2), (121, 4), (91, 4), (19, 4), (17, 8), (34, 4), (33, 32)])
def test_both_poles_have_the_second_row_beyond_them(rows, multiple):
    """Padding adds a row to the extended grid, so the rows next to those of the poles must be there before."""
    field = torch.arange(float(rows))[:, None].expand(rows, 2 * multiple).clone()
    extended, (inside, _) = sphere.extend(field[None, None], multiple, True)
    column = sphere.pad(extended)[0, 0, :, 1]
    assert column[inside.start].item() == 1
    assert column[inside.stop + 1].item() == rows - 2
    assert extended.shape[-2] % multiple == 0


@pytest.mark.parametrize(("scalars", "noise", "given"), [(2, 0, 0), (2, 0, 1), (0, 3, 0), (0, 0, 1)])
def test_a_network_needs_all_its_conditions_and_takes_no_others(scalars, noise, given):
    """Without any, those with conditions ran as if they had none."""
    with pytest.raises(ValueError, match=r"zip\(\)"):
        UNet(1, 1, [8], scalars=scalars, noise=noise)(torch.zeros(1, 1, 4, 8), *[torch.zeros(1)] * given)


def test_no_extension_where_none_is_needed():
    field = torch.randn(1, 1, 8, 16)
    extended, original = sphere.extend(field, 8, False)
    assert torch.equal(extended, field)
    assert original == (slice(0, 8), slice(0, 16))


@pytest.mark.parametrize(
    ("rows", "columns", "extended"), [(121, 240, (124, 240)), (32, 64, (32, 64)), (181, 360, (184, 360)), (18, 36, (20, 40))]
)
def test_real_grids_waste_nothing_beyond_the_next_multiple(rows, columns, extended):
    field = torch.zeros(1, 1, rows, columns)
    assert sphere.extend(field, 4, rows % 2 == 1)[0].shape[-2:] == extended
    network = UNet(1, 1, (4, 4, 4), includes_poles=rows % 2 == 1)
    assert network(field).shape == field.shape


def test_turning_the_globe_turns_the_output(random):
    network = trained(UNet(2, 3, (8, 8, 8), scalars=1), random)
    x, t = torch.randn(2, 2, 8, 16, generator=random), torch.rand(2, generator=random)
    with torch.no_grad():
        for shift in (4, 8, 12):  # multiples of 4, because the network halves the grid twice
            torch.testing.assert_close(network(x.roll(shift, -1), t), network(x, t).roll(shift, -1), atol=1e-5, rtol=1e-4)


def test_convolution_sees_the_neighbours_on_the_sphere(random):
    convolution = trained(Convolution(1, 1, sphere=True), random)
    field = torch.randn(4, 6, generator=random)
    kernel, bias = convolution.weight[0, 0].detach().numpy(), convolution.bias.item()
    expected = [
        [
            bias + sum(kernel[i, j] * neighbour(field.numpy(), row + i - 1, column + j - 1, False) for i in range(3) for j in range(3))
            for column in range(6)
        ]
        for row in range(4)
    ]
    with torch.no_grad():
        np.testing.assert_allclose(convolution(field[None, None])[0, 0].numpy(), expected, atol=1e-5)


def test_untrained_output_is_zero(random):
    network = UNet(3, 2, (8, 12), blocks=2, scalars=2)
    x, scalar = torch.randn(2, 3, 8, 8, generator=random), torch.rand(2, generator=random)
    assert not network(x, scalar, scalar).any()


def test_the_output_depends_on_the_scalars_and_one_value_is_enough_for_a_batch(random):
    network = trained(UNet(3, 2, (8, 12), scalars=2), random)
    x = torch.randn(3, 3, 8, 8, generator=random)
    t, w = torch.tensor([0.3]), torch.tensor([0.8])
    with torch.no_grad():
        shared = network(x, t, w)
        torch.testing.assert_close(network(x, t.expand(3), w.expand(3)), shared)
        assert (network(x, t + 0.1, w) - shared).abs().max() > 1e-3
        assert (network(x, t, w - 0.1) - shared).abs().max() > 1e-3


def test_embedding_tells_times_apart():
    """Sinusoids of t itself would hardly vary over [0, 1]."""
    embedding = ScalarEmbedding(16, 8)
    embedding.layers = torch.nn.Identity()
    features = embedding(torch.linspace(0, 1, 11))
    distance = torch.cdist(features, features) + 10 * torch.eye(11)
    assert distance.min() > 1


def test_padding_on_the_plane_does_not_wrap(random):
    x = torch.zeros(1, 1, 6, 8)
    other = x.clone()
    other[..., 0] = 1  # the left edge, which on the sphere is next to the right one
    for sphere_or_not, changed in ((False, [0, 1]), (True, [0, 1, 7])):
        convolution = trained(Convolution(1, 1, sphere=sphere_or_not), random)
        # In the rows next to a pole of the sphere, the columns half a turn away change too; these rows are left out.
        difference = (convolution(other) - convolution(x))[..., 1:-1, :].abs().amax(dim=(0, 1, 2))
        assert difference.nonzero()[:, 0].tolist() == changed


@pytest.mark.parametrize("shape", [(28, 28), (9, 13)])
def test_the_output_has_the_size_of_the_input_for_any_image(shape, random):
    network = trained(UNet(3, 2, (8, 8, 8), sphere=False, attention=(2,)), random)
    assert network(torch.randn(2, 3, *shape, generator=random)).shape == (2, 2, *shape)


def test_attention_is_a_weighted_mean_of_values(random):
    """Compare with the formula of Vaswani et al. (2017)."""
    attention = trained(Attention(4), random)
    x = torch.randn(2, 4, 3, 5, generator=random)
    with torch.no_grad():
        flat = attention.norm(x).flatten(2)
        query, key, value = (torch.einsum("oc,bcp->bop", w[:, :, 0, 0], flat) + b[:, None] for w, b in parts(attention.inputs))
        weights = torch.softmax(torch.einsum("bcp,bcq->bpq", query, key) / 4**0.5, dim=-1)
        mixed = torch.einsum("bpq,bcq->bcp", weights, value)
        output = torch.einsum("oc,bcp->bop", attention.output.weight[:, :, 0, 0], mixed) + attention.output.bias[:, None]
        torch.testing.assert_close(attention(x), x + output.reshape(x.shape))


def test_attention_asks_for_what_fused_kernels_take(random, monkeypatch):
    """They take (batch, head, point, channel) with adjacent channels. For anything else torch stores the points-by-points matrix."""
    asked = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda *qkv: asked.extend(qkv) or fused(*qkv))
    attention = Attention(8).to(memory_format=torch.channels_last)  # as networks are on every device
    attention(torch.randn(2, 8, 3, 5, generator=random).to(memory_format=torch.channels_last))
    assert [(x.shape, x.stride(3)) for x in asked] == [((2, 1, 15, 8), 1)] * 3


def parts(convolution: torch.nn.Conv2d) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return weights and biases of query, key and value."""
    return list(zip(convolution.weight.chunk(3), convolution.bias.chunk(3), strict=True))


def test_attention_is_at_the_levels_of_the_recipe_and_in_the_middle():
    network = UNet(3, 2, (8, 12, 16), blocks=2, attention=(1,), sphere=False)
    attends = [[isinstance(block.attention, Attention) for block in level] for level in network.down]
    assert attends == [[False, False], [True, True], [False, False]]
    assert isinstance(network.middle.attention, Attention)
    assert not any(isinstance(module, Attention) for module in UNet(3, 2, (8, 12)).modules())


def test_size_of_the_networks_of_appendix_b():
    """With 128 channels times (2, 2, 2) and 4 blocks, the reference's generator for CIFAR-10 has 56.0 million parameters."""
    network = UNet(13, 3, (256, 256, 256), blocks=4, scalars=2, sphere=False, attention=(1,))
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(56.0e6, rel=0.01)


@pytest.mark.parametrize(("rows", "poles"), [(8, False), (9, True), (5, False)])
def test_attention_on_the_sphere_does_not_tell_longitudes_apart(rows, poles, random):
    """This also holds if rows are added for the depth of the network. Attention reaches every point."""
    network = trained(UNet(3, 2, (8, 8, 8), includes_poles=poles, attention=(0, 2)), random).double()
    x = torch.randn(1, 3, rows, 16, generator=random).double()
    for turn in (4, 12):
        torch.testing.assert_close(network(x.roll(turn, -1)), network(x).roll(turn, -1))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[0, 0, rows // 2, 3], x)
    assert (gradient.abs().sum(dim=1) > 0).all()


def test_modulation_of_zero_changes_nothing():
    """Scale and shift are relative, so a block with zero modulation equals the block without a condition."""
    torch.manual_seed(0)
    conditioned, plain = (ResidualBlock(8, 8, embedding, 0.0, sphere=True, attends=False) for embedding in (6, 0))
    torch.nn.init.normal_(conditioned.convolution2.weight)
    torch.nn.init.zeros_(conditioned.modulation.weight)
    torch.nn.init.zeros_(conditioned.modulation.bias)
    plain.load_state_dict({name: value for name, value in conditioned.state_dict().items() if not name.startswith("modulation")})
    x = torch.randn(2, 8, 4, 8)
    torch.testing.assert_close(conditioned(x, torch.randn(2, 6)), plain(x, None))
