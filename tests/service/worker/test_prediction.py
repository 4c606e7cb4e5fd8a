"""What the resident process predicts for a card: the library's own figures, or one line."""

from __future__ import annotations

import pytest

import layerbench
from layerbench.errors import UsageError
from layerbench.profilers.latency.network import WEIGHTS
from layerbench.service.protocol.questions import Question
from layerbench.service.worker import prediction

INPUT = "3x64x64"


def asked(architecture: str = "resnet18", **changes: object) -> Question:
    return Question.model_validate(
        {
            "task_type": "classification",
            "architecture": architecture,
            "batch_size": 2,
            "image_size": [64, 64],
            "device": "t4",
            **changes,
        }
    )


def test_a_training_is_its_phases_without_the_optimizer():
    found = prediction.predict(asked(precision="amp"))
    estimate = layerbench.estimate_latency(
        "resnet18", INPUT, batch=2, device="t4", mode="train", optimizer="momentum", precision="amp"
    )
    assert (found.parameters, found.one_image, found.batch) == (11_689_512, None, None)
    for time, phase in ((found.forward, "forward"), (found.backward, "backward")):
        assert time.value == pytest.approx(estimate.phases[phase])
        assert time.low / time.value == pytest.approx(estimate.interval.low / estimate.seconds)
        assert time.high / time.value == pytest.approx(estimate.interval.high / estimate.seconds)
    assert found.forward.value + found.backward.value < estimate.seconds
    memory = layerbench.estimate_memory(
        "resnet18", INPUT, batch=2, device="t4", training=True, optimizer="momentum",
        precision="amp", largest_batch=False,
    )  # fmt: skip
    peak, bounds = found.gpu_memory_peak, memory.reserved_interval
    assert (peak.value, peak.low, peak.high) == (memory.reserved_bytes, bounds.low, bounds.high)
    assert found.environment.card.name == "t4"
    assert found.notes[0] == "predicted for NVIDIA T4, without it; intervals of times: 90 %"
    assert found.notes[1] == (
        f"times: not checked against measured times: {estimate.checked.question}"
    )


def test_a_forward_is_that_of_a_batch_and_of_one_image():
    asked_for = asked(application_type="inference", device="rtx4090", batch_size=256)
    found = prediction.predict(asked_for)
    for time, batch in ((found.batch, 256), (found.one_image, 1)):
        estimate = layerbench.estimate_latency("resnet18", INPUT, batch=batch, device="rtx4090")
        assert time.value == pytest.approx(estimate.seconds)
        assert (time.low, time.high) == pytest.approx(
            (estimate.interval.low, estimate.interval.high)
        )
    assert (found.forward, found.backward) == (None, None)


def test_a_batch_that_does_not_fit_says_so():
    found = prediction.predict(asked(application_type="inference", batch_size=65536))
    assert [note.partition(":")[0] for note in found.notes].count("the batch does not fit") == 1


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"precision": "amp-bf16"}, "t4 has no bf16 units, and .*; take precision fp32$"),
        (
            {
                "architecture": "ssdlite320_mobilenet_v3_large",
                "task_type": "detection",
                "application_type": "inference",
            },
            "ssdlite320_mobilenet_v3_large looks at values as it computes",
        ),
    ],
)
def test_what_cannot_be_predicted_is_said_in_one_line(changed, says):
    with pytest.raises(UsageError, match=says):
        prediction.predict(asked(**changed))


def test_other_weights_have_another_name(tmp_path, monkeypatch):
    before = prediction.made_of()
    assert prediction.made_of() == before
    for file in prediction.files(prediction.latency).iterdir():
        if file.name.endswith((".npz", ".json")):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(prediction, "files", lambda _: tmp_path)
    assert prediction.made_of() == before
    (tmp_path / WEIGHTS).write_bytes(b"another fit")
    assert prediction.made_of() != before
