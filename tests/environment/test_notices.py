"""What PyTorch says of itself is kept back, nothing else is, and all is put back afterwards."""

from __future__ import annotations

import logging
import warnings

import pytest

from layerbench.environment.notices import LOGGED, notices_kept_back

SAID = {
    "torch._subclasses.fake_tensor": "failed while attempting to run meta for aten.mm.default",
    "torch.utils.cpp_extension": "No CUDA runtime is found, using CUDA_HOME='/usr/local'",
    "torch.utils._pytree": "<enum 'KernelPreference'> is an Enum subclass and is now natively "
    "supported by torch.compile as an opaque value type.",
}


@pytest.mark.parametrize("name", LOGGED)
def test_a_notice_is_kept_back_and_others_of_its_logger_are_not(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger(name)
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    before = [*logger.filters]
    with pytest.raises(KeyboardInterrupt), notices_kept_back():  # noqa: PT012
        logger.warning(SAID[name])
        logger.warning("The compiler is too old, using %s", "gcc")
        raise KeyboardInterrupt
    assert {one.message for one in caplog.records} == {"The compiler is too old, using gcc"}
    assert logger.filters == before
    logger.warning(SAID[name])
    assert caplog.records[-1].message == SAID[name]


def test_a_notice_of_sparse_tensors_is_kept_back_and_other_warnings_are_not() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with notices_kept_back():
            warnings.warn("Sparse CSR tensor support is in beta state", stacklevel=1)
            warnings.warn("Sparse CSR tensors are odd", stacklevel=1)
    assert [str(one.message) for one in heard] == ["Sparse CSR tensors are odd"]


def test_the_loggers_are_those_that_say_it() -> None:
    """A release of PyTorch that renames them is noticed here."""
    from torch._subclasses import fake_tensor
    from torch.utils import _pytree, cpp_extension

    names = {fake_tensor.log.name, cpp_extension.logger.name, _pytree.log.name}
    assert names == LOGGED.keys()
