"""Values on the simulated accelerator are the CPU's."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import MobileNetV2, VisionTransformer, resnet18

from tests.simulated import Simulator
from tests.simulated.process import on_sim

MODELS = {
    "convolutions": lambda: MobileNetV2(num_classes=10, width_mult=0.25),
    "residuals": lambda: resnet18(num_classes=10),
    "attention": lambda: VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10),
}


def model_and_images(name: str) -> tuple[nn.Module, torch.Tensor]:
    """With values that are the same each time."""
    torch.manual_seed(0)
    return MODELS[name](), torch.rand(2, 3, 32, 32)


@on_sim
@pytest.mark.parametrize("name", MODELS)
def test_a_forward(sim: Simulator, name: str) -> None:
    model, images = model_and_images(name)
    model.eval()
    with torch.inference_mode():
        expected = model(images)
        assert torch.equal(model.to("sim:1")(images.to("sim:1")).cpu(), expected)


@on_sim
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_training(sim: Simulator, optimizer: type[torch.optim.Optimizer]) -> None:
    model, images = model_and_images("convolutions")
    labels = torch.tensor([3, 1])

    def trained(device: str) -> nn.Module:
        own = copy.deepcopy(model).to(device).eval()  # no dropout
        steps = optimizer(own.parameters(), lr=1e-3)
        for _ in range(3):
            steps.zero_grad()
            nn.functional.cross_entropy(own(images.to(device)), labels.to(device)).backward()
            steps.step()
        return own.cpu()

    for mine, other in zip(trained("sim").parameters(), trained("cpu").parameters(), strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-5)


@on_sim
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_layers(sim: Simulator, kind: type[nn.RNNBase], bias: bool) -> None:
    torch.manual_seed(0)
    layer, sequence = kind(4, 3, 2, bias=bias), torch.rand(5, 2, 4)

    def outcome(device: str) -> list[torch.Tensor]:
        own, given = copy.deepcopy(layer).to(device), sequence.to(device).requires_grad_()
        made, _ = own(given)
        made.pow(2).sum().backward()
        grads = [parameter.grad for parameter in own.parameters()]
        return [tensor.cpu() for tensor in (made, given.grad, *grads) if tensor is not None]

    for mine, other in zip(outcome("sim"), outcome("cpu"), strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-5)


@on_sim
def test_a_kernel_seen_before_may_write_into_another_of_its_arguments(sim: Simulator) -> None:
    sim.rules(skip=True)
    one, other, out = (torch.ones(4, device="sim") for _ in range(3))
    torch.add(one, other, out=out)
    one.add_(other)  # the same but for where it writes: here there are two tensors, not three
    assert torch.add(other, one, out=other) is other
    layer = nn.RNN(4, 4).to("sim")
    layer(torch.rand(4, 2, 4).to("sim"))[0].sum().backward()
    assert layer.weight_hh_l0.grad.shape == (4, 4)


@on_sim
def test_mixed_precision(sim: Simulator) -> None:
    model, images = model_and_images("attention")
    model.to("sim")
    scaler = torch.amp.GradScaler("sim", init_scale=128)
    steps = torch.optim.SGD(model.parameters(), lr=1e-3)
    with torch.autocast("sim", torch.float16):
        logits = model(images.to("sim"))
        loss = nn.functional.cross_entropy(logits, torch.tensor([3, 1], device="sim"))
    assert (logits.dtype, loss.dtype) == (torch.float16, torch.float32)
    scaler.scale(loss).backward()
    before = model.heads.head.weight.detach().clone()
    scaler.step(steps)
    scaler.update()
    assert not torch.equal(model.heads.head.weight, before)


@on_sim
def test_skipped_kernels_keep_their_shapes_and_times(sim: Simulator) -> None:
    model, images = model_and_images("convolutions")
    model.to("sim").eval()
    images = images.to("sim")

    def kernels() -> list[tuple[str, int]]:
        first = sim.kernel_count
        with torch.inference_mode():
            assert model(images).shape == (2, 10)
        return [(one.name, one.length_ns) for one in sim.kernels(first)]

    sim.rules(bytes_per_ns=4, flops_per_ns=50)
    expected = kernels()
    sim.rules(bytes_per_ns=4, flops_per_ns=50, skip=True)
    assert kernels() == kernels() == expected


@on_sim
def test_outputs_that_get_another_size_on_the_way(sim: Simulator) -> None:
    numbers = torch.arange(12.0).view(3, 4)
    loss = nn.functional.smooth_l1_loss(numbers.to("sim"), numbers.to("sim") + 3, reduction="sum")
    assert loss.item() == 12 * 2.5
    out = torch.empty(0, device="sim")
    torch.add(numbers.to("sim"), 1, out=out)
    assert torch.equal(out.cpu(), numbers + 1)


@on_sim
def test_saved_and_loaded(sim: Simulator, tmp_path: Path) -> None:
    numbers = torch.arange(4.0, device="sim:1")
    torch.save(numbers, tmp_path / "numbers.pt")
    loaded = torch.load(tmp_path / "numbers.pt")
    assert loaded.device == torch.device("sim:1")
    assert torch.equal(loaded.cpu(), torch.arange(4.0))


@on_sim
def test_there_are_two_devices(sim: Simulator) -> None:
    with pytest.raises(RuntimeError, match="There are 2 simulated devices"):
        torch.ones(1, device="sim:2")
