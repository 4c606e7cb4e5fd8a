"""The parts of a training, each on known answers."""

from __future__ import annotations

import pytest
import torch

from layerbench.errors import DataError, RecordError, UsageError
from layerbench.records.recipes import Recipe
from layerbench.records.training_run import EpochRow
from layerbench.training import checkpoints, step_statistics
from layerbench.training.batches import EpochBatches, EveryImage, Samples, collate, loader
from layerbench.training.checkpoints import Checkpoint
from layerbench.training.classification.distributed import covered
from layerbench.training.classification.lr_schedule import factor
from layerbench.training.classification.recipes import recipe_for
from layerbench.training.seeds import mixed


def recipe(**changes: object) -> Recipe:
    fields: dict[str, object] = {
        "model": "tests/models.py:digit_reader",
        "data": "digits",
        "size": (8, 8),
        "batch": 32,
        "epochs": 3,
        "lr": 0.01,
        "weight_decay": 0.1,
        "warmup_epochs": 1,
    }
    return Recipe.model_validate({**fields, **changes})


def epoch(number: int, accuracy: float) -> EpochRow:
    return EpochRow(
        epoch=number,
        steps=1,
        lr=0.1,
        train_loss=1,
        train_accuracy=0.5,
        val_loss=1,
        val_accuracy=accuracy,
        train_s=1,
        validation_s=1,
        images_per_s=1,
        phases_s={},
    )


# --- learning rate -------------------------------------------------------------------------


def test_the_rate_climbs_and_falls_in_straight_lines():
    found = [factor(step, warmup=4, total=12) for step in range(12)]
    assert found == [0.25, 0.5, 0.75, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    assert [factor(step, warmup=0, total=4) for step in range(5)] == [1, 0.75, 0.5, 0.25, 0]


# --- order ---------------------------------------------------------------------------------


def test_an_epoch_has_every_image_once_in_an_order_of_its_own():
    batches = EpochBatches(10, 3, seed=5)
    batches.set(1)
    first = list(batches)
    assert [len(batch) for batch in first] == [3, 3, 3]
    assert len({key for batch in first for key in batch}) == 9
    assert list(batches) == first
    batches.set(2)
    assert list(batches) != first
    assert all(epoch == 2 for batch in batches for epoch, _ in batch)


def test_beginning_in_the_middle_gives_the_rest():
    batches = EpochBatches(20, 3, seed=5)
    batches.set(4)
    whole = list(batches)
    batches.set(4, start=2, most=5)
    assert list(batches) == whole[2:5]
    assert len(batches) == 3


def test_processes_share_out_what_one_would_take():
    alone = EpochBatches(17, 4, seed=1)
    pair = [EpochBatches(17, 2, seed=1, rank=rank, ranks=2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*pair, strict=True)] == list(alone)
    assert pair[0].steps == alone.steps == 4


def test_fewer_images_than_a_batch():
    with pytest.raises(DataError, match="7 images to train on, fewer than one batch of 4 in each"):
        EpochBatches(7, 4, seed=0, ranks=2)


def test_a_validation_sees_every_image_once():
    seen = [
        index for rank in range(3) for batch in EveryImage(11, 2, rank, 3) for _, index in batch
    ]
    assert sorted(seen) == list(range(11))
    assert len(EveryImage(11, 2, most=3)) == 3


def test_seeds_far_apart():
    found = {mixed(0, stream, number) for stream in (1, 2, 3) for number in range(1000)}
    assert len(found) == 3000
    assert all(0 <= seed < 2**63 for seed in found)


# --- augmentation and unreadable images ----------------------------------------------------


class Noisy:
    """Each image is drawn anew whenever it is read; number 3 cannot be read."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == 3:
            raise OSError("cut short\nby someone")
        return torch.rand(2), index


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_depends_on_epoch_and_image_alone(workers):
    samples = Samples(Noisy(), lambda index: f"file {index}", seed=9)
    order = EpochBatches(8, 4, seed=9)
    found = {}
    for number in (1, 2):
        order.set(number)
        for batch in loader(samples, order, workers=workers, pinned=False, collate=collate):
            for image, label in zip(batch.images, batch.labels, strict=True):
                found[number, int(label)] = image
    for (number, index), image in found.items():
        expected, _ = samples[number, index]
        assert torch.equal(image, expected)
    assert not torch.equal(found[1, 0], found[2, 0])


def test_the_callers_random_numbers_are_left_alone():
    samples = Samples(Noisy(), str, seed=0)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    samples[1, 0]
    assert torch.equal(torch.rand(1), expected)


def test_an_image_that_cannot_be_read_is_named():
    samples = Samples(Noisy(), lambda index: f"file {index}", seed=0)
    batch = collate([samples[1, 2], samples[1, 3]])
    assert batch.unreadable == ("file 3 (OSError: cut short)",)
    assert batch.labels.tolist() == [2]
    assert collate([samples[1, 3]]).images is None


# --- patience, spans -----------------------------------------------------------------------


def test_the_first_best_epoch_is_kept_and_patience_runs_out():
    rows = [epoch(1, 0.5), epoch(2, 0.7), epoch(3, 0.7), epoch(4, 0.6)]
    assert step_statistics.best_epoch(rows) == 2
    assert step_statistics.best_epoch([]) is None
    assert not step_statistics.out_of_patience(recipe(patience=3), rows)
    assert step_statistics.out_of_patience(recipe(patience=2), rows)
    assert not step_statistics.out_of_patience(recipe(), rows)


def test_overlapping_spans_count_once():
    assert covered([]) == 0
    assert covered([(5, 9), (0, 3), (2, 6), (20, 21)]) == 10
    assert covered([(0, 10), (2, 3)]) == 10


# --- checkpoints ---------------------------------------------------------------------------


def test_a_checkpoint_reads_back(tmp_path):
    path = tmp_path / "checkpoint.pth"
    states = {"model": {"w": torch.arange(3.0)}, "optimizer": {}, "scaler": {}}
    written = Checkpoint(recipe(), 2, 5, states, {"loss": 1.5}, (epoch(1, 0.5),), (1,), ("a",))
    checkpoints.write(path, written)
    found = checkpoints.read(path)
    assert torch.equal(found.states["model"]["w"], torch.arange(3.0))
    for name in ("recipe", "epoch", "step", "sums", "rows", "resumed_after", "unreadable"):
        assert getattr(found, name) == getattr(written, name)


def test_what_is_no_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pth"
    with pytest.raises(RecordError, match="there is no checkpoint"):
        checkpoints.read(path)
    checkpoints.write(path, Checkpoint(recipe(), 1, 0, {"model": {"w": torch.zeros(1000)}}))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(RecordError, match="is not a readable checkpoint"):
        checkpoints.read(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(RecordError, match="not a checkpoint of this version"):
        checkpoints.read(path)


def test_another_training_is_not_gone_on_with(tmp_path):
    checkpoints.check_same(recipe(), recipe(patience=4), tmp_path)
    with pytest.raises(UsageError, match="of another training: model resnet18 there"):
        checkpoints.check_same(recipe(), recipe(model="resnet18", seed=1), tmp_path)


# --- what a phase means --------------------------------------------------------------------


def test_phases():
    scratch = recipe_for("resnet18", 1)
    assert (scratch.data, scratch.weights, scratch.weight_decay) == ("imagenet", None, 0.1)
    assert (scratch.size, scratch.warmup_epochs) == ((224, 224), 5)
    tuned = recipe_for("resnet18", 2, size=(32, 48), epochs=4, patience=0)
    assert (tuned.data, tuned.weights, tuned.size) == ("cifar100", "DEFAULT", (32, 48))
    assert (tuned.warmup_epochs, tuned.patience) == (0.4, None)
    assert recipe_for("resnet18", 2, pretrained=False).weights is None
    # A model of the user's own has none to load, and is not asked for any.
    assert recipe_for("tests/models.py:digit_reader", 2, size=(8, 8)).weights is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"phase": 3}, "--phase takes 1 or 2"),
        ({"data": "mnist"}, "no data set 'mnist'"),
        ({"batch": 0}, "--batch_size must be at least 1"),
        ({"lr": 0.0}, "--lr must be positive"),
        ({"weight_decay": -1.0}, "--weight_decay must be at least 0"),
        ({"limit": 0}, "--limit must be at least 1"),
    ],
)
def test_recipes_that_cannot_be_meant(arguments, says):
    with pytest.raises(UsageError, match=says):
        recipe_for("resnet18", **arguments)


def test_a_size_that_is_not_known():
    with pytest.raises(UsageError, match="give --size"):
        recipe_for("tests/models.py:digit_reader")
    with pytest.raises(UsageError, match="no published weights"):
        recipe_for("tests/models.py:digit_reader", size=(8, 8), pretrained=True)
