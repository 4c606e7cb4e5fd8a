"""What the service's real measuring process finds, on real models; and its client."""

from __future__ import annotations

import os
import re
import signal
import sys
from dataclasses import replace
from typing import Any

import httpx
import psutil
import pytest
import torch
from torch import nn

from layerbench import cli, zoo
from layerbench.environment.conditions import ConditionsWatch
from layerbench.environment.devices.clocks import ManualClock
from layerbench.environment.devices.cpu import Cpu
from layerbench.errors import ModelRunError, NotEnoughMemory, UsageError
from layerbench.records.memory import AllocatorFigures
from layerbench.records.workload import Workload
from layerbench.service.protocol.questions import EXAMPLE, NAME, Question
from layerbench.service.protocol.results import MeasurementResult
from layerbench.service.worker import catalog, estimate
from layerbench.training import estimate as training_estimate
from layerbench.zoo import Built, timm
from tests.support.service_process import server, until

DETECTOR = "fasterrcnn_mobilenet_v3_large_320_fpn"
REAL = "layerbench.service.worker.process"
RESOURCE = "/api/v1/estimate-resource"


@pytest.fixture
def slow(monkeypatch):
    """Every step and every forward counts as one that takes long."""
    monkeypatch.setattr(training_estimate, "SLOW_S", 0.0)
    monkeypatch.setattr(estimate, "REPEATS", replace(estimate.REPEATS, slow_s=0.0))


def asked(architecture: str, task: str = "classification", **changes: object) -> Question:
    given = {"parameters": None, "batch_size": 2, "image_size": [64, 64], **changes}
    return Question.model_validate(
        {**EXAMPLE, "task_type": task, "architecture": architecture, **given}
    )


@pytest.mark.parametrize("threading", [False, True])
def test_a_training_step(threading):
    found = estimate.measure(asked("resnet18", threading=threading), "cpu", 0.3)
    assert found.parameters == 11_689_512
    for phase in (found.forward, found.backward, found.optimizer):
        assert phase is not None
        assert 0 < phase.low < phase.value < phase.high
        assert phase.method == "measured"
    assert (found.one_image, found.batch) == (None, None)
    # Weights, gradients and momentum, on a GPU.
    assert found.gpu_memory_peak.value > 3 * 4 * found.parameters
    assert found.gpu_memory_peak.method == "analytic"
    assert found.ram_peak >= found.ram_before > 4 * found.parameters
    assert 0 < found.cpu_peak <= 1
    assert (found.gpu_peak, found.vram_before) == (None, None)
    stages = {look.stage for look in found.looks}
    wanted = {"before", None} if threading else {"before", "forward", "backward", "optimizer"}
    assert stages == wanted
    assert found.ended_at > found.began_at


class Counting(Cpu):
    """A device whose allocator counts."""

    def held(self):
        return AllocatorFigures(allocated=3, reserved=8)


def test_a_gpus_memory_means_the_same_in_every_look():
    looks = estimate._Looks(Counting(), lambda: None)
    looks.take("before")
    looks.while_running(True, lambda: None)
    assert [(look.stage, look.vram) for look in looks.all] == [("before", 8), (None, 8)]


def test_what_an_earlier_question_left_is_given_back_before_the_peak_begins():
    told = []

    class Noting(Counting):
        kind = "sim"

        def forget_freed(self):
            told.append("forget")

        def begin_peak(self):
            told.append("begin")

    estimate._Looks(Noting(), lambda: None)
    assert told == ["forget", "begin"]


def test_a_gpus_batch_is_pinned_once_and_copied_without_waiting(monkeypatch):
    pinned, copied = [], []
    usual = torch.Tensor.to

    def to(tensor, *where, **options):
        copied.append(options)
        return usual(tensor, *where, **options)

    class Gpu(Cpu):
        kind = "cuda"

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda batch: pinned.append(1) or batch)
    monkeypatch.setattr(torch.Tensor, "to", to)
    workload = Workload(model="x", input="own", shape=(1, 2), batch=1, mode="train")
    built = Built(nn.Linear(2, 2), (torch.ones(1, 2),))
    step = estimate._Subject(workload, built, Gpu(), ConditionsWatch()).step()
    copied.clear()
    for _ in range(2):
        step.move(step.fetch())
    assert pinned == [1]
    assert copied == [{"copy": True, "non_blocking": True}] * 2


@pytest.mark.parametrize(
    ("architecture", "task"),
    [("timm:test_resnet", "classification"), ("lraspp_mobilenet_v3_large", "segmentation")],
)
def test_models_of_other_kinds(architecture, task):
    assert architecture in catalog.models()[task]
    found = estimate.measure(asked(architecture, task), "cpu", 0.0)
    assert found.backward.value > 0
    inference = asked(architecture, task, application_type="inference", threading=True)
    found = estimate.measure(inference, "cpu", 0.0)
    assert found.one_image.value > 0
    assert found.batch.value > 0
    assert found.content == {}


@pytest.mark.slow
@pytest.mark.usefixtures("slow")
def test_detectors_are_trained_and_used():
    small = {"batch_size": 1, "image_size": [32, 32]}
    found = estimate.measure(asked(DETECTOR, "detection", **small), "cpu", 0.0)
    assert found.backward is not None
    inference = asked(DETECTOR, "detection", **small, application_type="inference")
    found = estimate.measure(inference, "cpu", 0.0)
    assert found.one_image.value > 0
    assert found.batch.value > 0
    assert set(found.content) == {"proposals", "detections"}
    assert MeasurementResult.model_validate(found.model_dump(mode="json")) == found


def test_a_batch_and_its_first_image_are_timed(monkeypatch):
    clock = ManualClock()

    class Ticking(nn.Module):
        def forward(self, x):
            clock.advance(1_000 * len(x))
            return x

    monkeypatch.setattr(Cpu, "clock", lambda self: clock)
    monkeypatch.setattr(zoo, "build", lambda workload: zoo.Built(Ticking(), (torch.ones(4, 3),)))
    found = estimate.measure(asked("resnet18", application_type="inference"), "cpu", 0.0)
    assert found.batch.value == pytest.approx(4e-6)
    assert found.one_image.value == pytest.approx(1e-6)


@pytest.mark.usefixtures("slow")
def test_few_runs_do_where_each_takes_long():
    few = training_estimate.SLOW_STEPS
    assert estimate.measure(asked("resnet18"), "cpu", 0.0).steps == few
    inference = asked("resnet18", application_type="inference")
    assert estimate.measure(inference, "cpu", 0.0).steps == estimate.REPEATS.slow_fewest


def test_what_a_model_raises_is_one_line(monkeypatch):
    class Broken(nn.Module):
        def forward(self):
            raise ValueError("cannot\nbe")

    monkeypatch.setattr(zoo, "build", lambda workload: zoo.Built(Broken(), ()))
    with pytest.raises(ModelRunError, match="resnet18: cannot"):
        estimate.measure(asked("resnet18", application_type="inference"), "cpu", 0.0)


def test_a_batch_beyond_all_memory_is_refused_at_once():
    with pytest.raises(NotEnoughMemory):
        estimate.measure(asked("vgg16", batch_size=65536, image_size=[1024, 1024]), "cpu", 0.0)


def test_the_device_has_one_name_however_it_is_asked_for():
    assert catalog.device("cpu") == catalog.device("CPU")
    assert catalog.device("cpu").startswith("cpu ")


def test_without_timm_there_are_torchvisions(monkeypatch):
    def not_installed():
        raise UsageError("timm is not installed")

    monkeypatch.setattr(timm.Timm, "names", lambda _: not_installed())
    assert "resnet18" in catalog.models()["classification"]


def test_every_architecture_is_one_of_a_task():
    found = catalog.models()
    assert {"resnet18", "vit_b_16", "timm:resnet50"} <= set(found["classification"])
    assert {"fcn_resnet50", "lraspp_mobilenet_v3_large"} <= set(found["segmentation"])
    assert DETECTOR in found["detection"]
    assert found["instance"] == ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"]
    assert {"hf:vit", "open_clip:ViT-B-32", "open_clip:ViT-B-32/visual"} <= set(
        found["classification"]
    )
    # The configuration of its text tower would come from a hub.
    fetched = "open_clip:roberta-ViT-B-32"
    assert fetched not in found["classification"]
    assert f"{fetched}/visual" in found["classification"]
    assert {"smp:Unet/resnet34", "hf:segformer"} <= set(found["segmentation"])
    names = [
        name for task in ("classification", "segmentation", "detection") for name in found[task]
    ]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(NAME, name) for name in names)
    assert not re.fullmatch(NAME, "smp:Unet/resnet34/../x")
    assert not re.fullmatch(NAME, "open_clip:hf-hub:org/name")
    assert not {name for name in names if name.startswith(("quantized", "raft", "r3d"))}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_the_real_process(tmp_path, monkeypatch, capsys):
    limits = {"LAYERBENCH_SERVE_CHILD": REAL, "LAYERBENCH_SERVE_SECONDS": "0.1"}
    with server(tmp_path, **limits, LAYERBENCH_SERVE_MEMORY="2GiB") as (process, url):
        small = asked("resnet18").model_dump(mode="json")
        answer = httpx.post(url + RESOURCE, json=small, timeout=120)
        assert answer.status_code == 200
        assert answer.json()["Batch Time"]["backward_pass"] > 0
        # Figures of a busy machine are not kept for the next one who asks.
        until(lambda: not resource(url, small)["about"]["unsteady"])
        # More than the process may take.
        large = asked("resnet18", batch_size=256, image_size=[224, 224]).model_dump(mode="json")
        answer = httpx.post(url + RESOURCE, json=large, timeout=120)
        assert answer.status_code == 422
        assert "memory" in answer.json()["detail"]
        # It is killed while it measures.
        other = asked("resnet34").model_dump(mode="json")
        job = httpx.post(url + RESOURCE, json=other, headers={"Prefer": "respond-async"}).json()
        where = f"{url}/api/v1/jobs/{job['id']}"
        until(lambda: httpx.get(where).json()["state"] == "running")
        # The first is the one that told the architectures.
        *_, child = sorted(psutil.Process(process.pid).children(), key=lambda one: one.pid)
        os.kill(child.pid, signal.SIGKILL)
        until(lambda: httpx.get(where).json()["state"] == "failed")
        assert "SIGKILL" in httpx.get(where).json()["reason"]

        cases = tmp_path / "cases.csv"
        cases.write_text(
            "route,task_type,architecture,batch_size,image_size,threading,device\n"
            "estimate-training-time,classification,resnet18,2,64x64,false,\n"
            "estimate-inference-time,classification,resnet18,2,64x64,,RTX 4090\n"
            "estimate-resource,classification,resnet81,2,64x64,,\n"
        )
        status, out = client(monkeypatch, capsys, "--test-cases", cases, "--url", url)
    assert status == 1
    for words in ("Total Training Time", "store", "422: no architecture 'resnet81'", "64x64"):
        assert words in out
    assert re.search(r"RTX 4090 +1-Image Inference Time .* prediction ", out)


def resource(url: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What the service answers for a measured question."""
    answer: dict[str, Any] = httpx.post(url + RESOURCE, json=asked, timeout=120).json()
    return answer


def client(monkeypatch, capsys, *words: object) -> tuple[object, str]:
    line = ["layerbench", "client", *words, "--quiet"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in line])
    with pytest.raises(SystemExit) as left:
        cli.main()
    shown = capsys.readouterr()
    return left.value.code, shown.out + shown.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("architecture,batch_size\nresnet18,two\n", "line 2: batch_size cannot be 'two'"),
        ("architecture\nresnet18,2\n", "line 2: more cells than names"),
        ("route\nestimate\n", "line 2: route takes estimate-resource"),
        ("architecture\n", "has no questions"),
        ("architecture,image_size\na,64\n", "line 2: image_size cannot be '64'"),
        ("architecture\nresnet18\n", "start one with layerbench serve"),
    ],
)
def test_tables_and_services_that_are_no_good(monkeypatch, capsys, tmp_path, text, says):
    cases = tmp_path / "cases.csv"
    cases.write_text(text)
    status, out = client(monkeypatch, capsys, "--test-cases", cases, "--url", "http://127.0.0.1:9")
    assert status == 2
    assert says in out
    assert out.count("\n") == 1
