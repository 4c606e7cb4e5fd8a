"""What a model computes in: autocast and TF32, refused where there is none, taken back after."""

import pytest
import torch
from torch import backends

from layerbench.environment import devices
from layerbench.environment import precision as computing
from layerbench.errors import UsageError

GET = torch._C._get_fp32_precision_getter
SET = torch._C._set_fp32_precision_setter
PLACES = [*computing._PARENTS, *computing._OPERATORS]


def switches() -> dict[object, object]:
    """What PyTorch says of TF32, in both interfaces."""
    each = {place: GET(*place) for place in PLACES}
    return each | {
        "matmul": torch.get_float32_matmul_precision(),
        "cuda": backends.cuda.matmul.allow_tf32,
        "cudnn": backends.cudnn.allow_tf32,
    }


@pytest.fixture
def multiplies_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "_cpu_multiplies_tf32", lambda: True)


@pytest.mark.usefixtures("multiplies_tf32")
def test_tf32_is_allowed_in_the_block_and_the_switches_are_as_before():
    before = switches()
    with computing.precision_set("tf32", devices.get("cpu")):
        within = switches()
    assert switches() == before
    assert {within[place] for place in computing._OPERATORS} == {"tf32"}
    assert (within["matmul"], within["cuda"], within["cudnn"]) == ("high", True, True)


@pytest.mark.usefixtures("multiplies_tf32")
def test_what_was_not_set_itself_still_follows_what_is_above_it():
    with computing.precision_set("tf32", devices.get("cpu")):
        pass
    try:
        SET("generic", "all", "tf32")
        assert GET("mkldnn", "conv") == "tf32"
        SET("generic", "all", "ieee")
        assert GET("mkldnn", "conv") == "ieee"
        with computing.precision_set("tf32", devices.get("cpu")):
            assert GET("mkldnn", "conv") == "tf32"
        assert (GET("generic", "all"), GET("mkldnn", "conv")) == ("ieee", "ieee")
    finally:
        SET("generic", "all", "none")
    assert GET("mkldnn", "conv") == "none"


@pytest.mark.usefixtures("multiplies_tf32")
def test_the_switches_come_back_when_the_block_raises():
    before = switches()
    with pytest.raises(KeyError), computing.precision_set("tf32", devices.get("cpu")):
        raise KeyError
    assert switches() == before


def test_a_precision_that_the_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(computing, "_cpu_multiplies_tf32", lambda: False)
    with (
        pytest.raises(UsageError, match="tf32 is not for cpu: the CPU has no AMX-FP16"),
        computing.precision_set("tf32", devices.get("cpu")),
    ):
        raise AssertionError
    monkeypatch.setattr(torch.amp.autocast_mode, "is_autocast_available", lambda _: False)
    with pytest.raises(UsageError, match=r"amp is not for cpu: .*unsupported autocast device_type"):
        computing.check_precision("amp", devices.get("cpu"))


@pytest.mark.parametrize(("precision", "kind"), [("amp", "float16"), ("amp-bf16", "bfloat16")])
def test_each_forward_has_an_autocast_of_its_own(precision, kind):
    layer = torch.nn.Linear(3, 3)
    forward = computing.autocasting(layer, precision, "cpu")
    assert forward(torch.ones(1, 3)).dtype == getattr(torch, kind)
    assert not torch.is_autocast_enabled("cpu")
    assert layer(torch.ones(1, 3)).dtype == torch.float32


def test_without_autocast_the_forward_is_itself():
    layer = torch.nn.Linear(3, 3)
    for precision in (None, "fp32", "bf16", "tf32"):
        assert computing.autocasting(layer, precision, "cpu") is layer
