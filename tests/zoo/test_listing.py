"""Names of models without torch."""

from __future__ import annotations


def test_the_names_of_models_are_torchvisions() -> None:
    from torchvision import models

    from layerbench.zoo.listing import torchvision_names

    assert set(torchvision_names()) == set(models.list_models())
    detectors = models.list_models(module=models.detection)
    assert torchvision_names("detection") == tuple(sorted(detectors))
