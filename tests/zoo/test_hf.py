"""Models of transformers: names, inputs, counts, saved models, and what is refused."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import layerbench
from layerbench import zoo
from layerbench.errors import LayerbenchError, UnknownModel, UsageError
from layerbench.introspection.nested import map_tensors, tensors_in
from layerbench.profilers.loss import loss_of
from layerbench.service.protocol.questions import ViewQuestion
from layerbench.service.worker import catalog
from layerbench.service.worker.estimate import _first
from layerbench.store.paths import model_name
from layerbench.training.classification.models import classification_loss, logits_of
from layerbench.zoo import hf

transformers = pytest.importorskip("transformers")

WIDTH, HIDDEN, CLASSES, TOKENS = 16, 32, 5, 17
TOWER = {
    "hidden_size": WIDTH,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
IMAGES = {"image_size": 32, "patch_size": 8}
TEXTS = {"vocab_size": 99, "max_position_embeddings": 12, "projection_size": WIDTH}


def vit():
    config = transformers.ViTConfig(**TOWER, **IMAGES, num_labels=CLASSES)
    return transformers.ViTForImageClassification(config)


def clip():
    towers = {"text_config": {**TOWER, **TEXTS}, "vision_config": {**TOWER, **IMAGES}}
    return transformers.CLIPModel(transformers.CLIPConfig(**towers, projection_dim=8))


def siglip2():
    seen = {**TOWER, "patch_size": 8, "num_patches": 16}
    config = transformers.Siglip2Config(text_config={**TOWER, **TEXTS}, vision_config=seen)
    return transformers.Siglip2Model(config)


def detr():
    sizes = {"embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4}
    config = transformers.DetrConfig(
        backbone_config=transformers.ResNetConfig(**sizes, out_features=["stage4"]),
        **{"d_model": WIDTH, "num_queries": 4, "encoder_layers": 1, "decoder_layers": 1},
        **{f"{part}_{size}": 4 for part in ("encoder", "decoder") for size in ("ffn_dim",)},
    )
    return transformers.DetrForObjectDetection(config)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of save_pretrained, by name."""
    root = tmp_path_factory.mktemp("saved")
    torch.manual_seed(1)
    for make in (vit, clip, siglip2, detr):
        make().save_pretrained(root / make.__name__)
    return root


# --- names ----------------------------------------------------------------------------------------


def test_architectures_are_those_of_the_librarys_mappings():
    names = set(hf.FAMILY.names())
    asked = "vit dinov2 swinv2 convnextv2 segformer detr mask2former clip siglip2 sam2"
    assert {f"hf:{name}" for name in asked.split()} <= names
    assert {"hf:clip_vision", "hf:dab_detr"} <= names
    assert len(names) > 100


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("hf:detr", "DetrForObjectDetection"),
        ("hf:segformer", "SegformerForSemanticSegmentation"),
        ("hf:segformer:image-classification", "SegformerForImageClassification"),
        ("hf:clip", "CLIPModel"),
        ("hf:clip_vision", "CLIPVisionModel"),
        ("hf:dinov2:image", "Dinov2Model"),
    ],
)
def test_a_name_is_the_model_that_the_architecture_was_made_for(spec, kind):
    assert hf._resolved(hf._Spec.of(spec))[0].__name__ == kind


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ("hf:vit", (1, 3, 224, 224)),
        ("hf:yolos", (1, 3, 512, 864)),
        ("hf:mask2former", (1, 3, 480, 640)),
        ("hf:siglip2", (1, 3, 256, 256)),
        ("hf:depth_pro", (1, 3, 1536, 1536)),
        ("hf:lw_detr", (1, 3, 512, 640)),
        ("hf:sam2", (1, 3, 1024, 1024)),
        ("hf:vivit", (1, 32, 3, 224, 224)),
    ],
)
def test_inputs_are_the_configurations(spec, shape):
    assert zoo.resolve(spec).shape == shape


@pytest.mark.parametrize(
    ("spec", "error", "why"),
    [
        ("hf:segformr", UnknownModel, "did you mean hf:segformer"),
        ("hf:", UnknownModel, "names no model"),
        ("hf:vit:object-detection", UsageError, "vit has image-classification, image"),
        ("hf:./no/such/folder", UnknownModel, r"no config\.json"),
    ],
)
def test_names_that_are_refused(spec, error, why):
    with pytest.raises(error, match=why) as caught:
        zoo.resolve(spec)
    assert "\n" not in str(caught.value)


def test_weights_belong_to_a_saved_model():
    with pytest.raises(UsageError, match="without weights: name a model of the hub"):
        zoo.resolve("hf:vit", weights="DEFAULT")


def test_a_model_that_takes_something_else_says_what():
    with pytest.raises(UsageError, match="'classes_input_ids'"):
        zoo.build_shapes(zoo.resolve("hf:omdet_turbo"))


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for kept in (hf._architectures, hf._of_task):
        kept.cache_clear()
    with pytest.raises(UsageError, match=r"pip install 'layerbench\[hf\]'"):
        zoo.resolve("hf:vit")
    assert not any(name.startswith("hf:") for name in catalog.models()["classification"])


# --- saved models ---------------------------------------------------------------------------------


def test_vit_counts_as_by_hand(saved):
    record = layerbench.structure(f"hf:{saved / 'vit'}")
    patches, patch = TOKENS - 1, 3 * 8 * 8
    block = 4 * TOKENS * WIDTH**2 + 2 * TOKENS**2 * WIDTH + 2 * TOKENS * WIDTH * HIDDEN
    assert record.flops == 2 * (patches * patch * WIDTH + block + WIDTH * CLASSES)
    weights = 4 * (WIDTH**2 + WIDTH) + 2 * WIDTH * HIDDEN + HIDDEN + WIDTH + 4 * WIDTH
    embedded = patch * WIDTH + WIDTH + WIDTH + TOKENS * WIDTH
    assert record.parameters == embedded + weights + 2 * WIDTH + WIDTH * CLASSES + CLASSES
    assert record.parameter_bytes == 4 * record.parameters
    assert record.how == "meta"


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("clip", {"input_ids": (2, 12), "pixel_values": (2, 3, 32, 32)}),
        (
            "siglip2",
            {
                "input_ids": (2, 12),
                "pixel_values": (2, 16, 192),
                "pixel_attention_mask": (2, 16),
                "spatial_shapes": (2, 2),
            },
        ),
        ("detr", {"pixel_values": (2, 3, 64, 96)}),
    ],
)
def test_inputs_fit_and_counts_are_the_librarys(saved, name, given):
    spec, size = f"hf:{saved / name}", "3x64x96" if name == "detr" else None
    subject = zoo.build(zoo.resolve(spec, size, batch=2))
    assert {key: tuple(value.shape) for key, value in subject.kwargs.items()} == given
    subject.module.set_attn_implementation("eager")  # FlopCounterMode misses the fused one on CPUs
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        subject.module(**subject.kwargs)
    record = layerbench.structure(spec, size, batch=2)
    assert record.flops == counter.get_total_flops()
    assert record.parameters == sum(p.numel() for p in subject.module.parameters())


@pytest.mark.slow
def test_every_recipe_runs(saved):
    spec, few = f"hf:{saved / 'clip'}", {"device": "cpu", "warmup": 0, "iterations": 1}
    timed = layerbench.profile(spec, **few, function_iterations=1, ceilings=False)
    assert timed.layers[0].calls == 1
    trained = layerbench.profile_training(spec, **few)
    assert trained.rows[0].backward is not None
    weights = 4 * trained.parameters
    assert layerbench.memory(spec).peak.bytes > weights
    assert layerbench.estimate_memory(spec).peak_bytes > weights


def test_weights_of_a_saved_model_are_loaded_when_asked_for(saved):
    spec = f"hf:{saved / 'vit'}"
    theirs = transformers.ViTForImageClassification.from_pretrained(saved / "vit").state_dict()
    ours = zoo.build(zoo.resolve(spec, weights="DEFAULT")).module.state_dict()
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())
    random = zoo.build(zoo.resolve(spec)).module.state_dict()
    again = zoo.build(zoo.resolve(spec)).module.state_dict()
    first = next(name for name, value in theirs.items() if value.dim() == 2)
    assert not torch.equal(theirs[first], random[first])
    assert all(torch.equal(again[name], value) for name, value in random.items())


def test_another_size_is_configured_or_interpolated(saved):
    spec = f"hf:{saved / 'vit'}"
    built = zoo.build(zoo.resolve(spec, "1x3x48x48"))
    assert built.module(**built.kwargs).logits.shape == (1, CLASSES)
    loaded = zoo.build(zoo.resolve(spec, "1x3x48x48", weights="DEFAULT"))
    assert loaded.kwargs["interpolate_pos_encoding"] is True
    assert loaded.module(**loaded.kwargs).logits.shape == (1, CLASSES)


def test_weights_that_lack_the_head_are_refused(saved):
    with pytest.raises(LayerbenchError, match=r"lack 2 of the tensors .* classifier\.bias"):
        zoo.build(zoo.resolve(f"hf:{saved / 'clip'}:image-classification", weights="DEFAULT"))


def test_a_pickle_is_not_opened(saved, tmp_path):
    config = (saved / "vit" / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    torch.save(vit().state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(LayerbenchError, match="safetensors"):
        zoo.build(zoo.resolve(f"hf:{tmp_path}", weights="DEFAULT"))


def test_code_of_a_repository_is_never_run(tmp_path):
    mark = tmp_path / "ran"
    (tmp_path / "code.py").write_text(f"open({str(mark)!r}, 'w')")
    config = {"model_type": "theirs", "auto_map": {"AutoConfig": "code.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"no configuration from its config\.json"):
        zoo.resolve(f"hf:{tmp_path}")
    assert not mark.exists()


def test_a_model_of_the_hubs_cache_needs_no_network(saved, tmp_path, monkeypatch):
    from huggingface_hub import constants

    # Nobody listens there, and nobody waits until somebody does.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
    with pytest.raises(UsageError, match="the hub and its cache") as caught:
        zoo.resolve("hf:nobody/nothing")
    assert "\n" not in str(caught.value)
    _cached(saved / "vit", tmp_path / "models--somebody--small")
    workload = zoo.resolve("hf:somebody/small", weights="DEFAULT")
    assert workload.shape == (1, 3, 32, 32)
    assert zoo.build(workload).module.config.num_labels == CLASSES


def _cached(model: Path, place: Path) -> None:
    """As the hub's client lays out what it has fetched."""
    revision = "0" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(revision)
    (place / "snapshots").mkdir()
    (place / "snapshots" / revision).symlink_to(model)


def test_a_folders_place_is_not_in_a_reports_name(tmp_path):
    assert model_name(f"hf:{tmp_path}/small") == "hf-small"
    assert model_name("hf:org/small") == "hf-org-small"


# --- outputs --------------------------------------------------------------------------------------


def test_outputs_of_the_library_are_searched_and_mapped(saved):
    built = zoo.build(zoo.resolve(f"hf:{saved / 'vit'}"))
    labels = torch.tensor([1])
    output = built.module(**built.kwargs, labels=labels, output_hidden_states=True)
    found = list(tensors_in(output))
    assert [tensor.shape for tensor in found[:2]] == [(), (1, CLASSES)]
    doubled = map_tensors(output, lambda tensor: tensor * 2)
    assert type(doubled) is type(output)
    assert torch.equal(doubled.logits, output.logits * 2)
    assert torch.equal(doubled.hidden_states[0], output.hidden_states[0] * 2)
    assert loss_of(output) is output.loss
    assert loss_of({"logits": output.logits}).item() > 0
    # Hidden states are no auxiliary logits of a classifier.
    assert logits_of(output) is output.logits
    assert torch.equal(classification_loss(output, labels), output.loss)


def test_the_first_image_of_keyword_arguments_is_one_image():
    args, kwargs = _first(((), {"pixel_values": torch.zeros(4, 3, 2, 2), "more": True}))
    assert args == ()
    assert kwargs["pixel_values"].shape == (1, 3, 2, 2)
    assert kwargs["more"] is True


# --- the service ----------------------------------------------------------------------------------


def test_the_service_takes_architectures_and_no_place_of_a_model():
    assert ViewQuestion(architecture="hf:vit").named
    for place in ("hf:org/name", "hf:./folder", "hf:/folder", "hf:vit:image", "os:abort"):
        assert not ViewQuestion(architecture=place).named
    found = catalog.models()
    assert {"hf:vit", "hf:clip"} <= set(found["classification"])
    assert {"hf:segformer", "hf:mask2former"} <= set(found["segmentation"])
