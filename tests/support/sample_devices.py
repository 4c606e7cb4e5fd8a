"""Profiles with device rounds, made by hand: the tiny model on an accelerator, with known figures.

Device times are a tenth of the layered sample's: 1 ms in which kernels run, 1.1 ms behind a blocked
queue, 2.75 ms untouched. So launching costs 1.65 ms, 60 % of the whole.
"""

from __future__ import annotations

from layerbench.records.timing import DeviceRounds, KernelRow, LayerRow, Profile, Summary
from tests.support.sample_profiles import counted, on_gpu, summary

_FPROP = (
    "sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nhwckrsc_nhwc_tilesize128x128x8_stage3_"
    "warpsize2x2x1_g1_ffma_aligna4_alignc4_execute_kernel__5x_cudnn"
)
_SGEMM = "cutlass_80_simt_sgemm_128x64_8x5_nn_align1"
_ADD = "at::native::CUDAFunctor_add<float>"
_ELEMENTWISE = (
    "void at::native::vectorized_elementwise_kernel<4, {0}, at::detail::Array<char*, 3> >"
)
ADD = f"{_ELEMENTWISE.format(_ADD)}(int, {_ADD}, at::detail::Array<char*, 3>)"
RELU = f"{_ELEMENTWISE.format('at::native::(anonymous namespace)::clamp_min')}(int)"
MEAN = (
    "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::MeanOps<float, "
    "float, float, float>, unsigned int, float, 4> >(at::native::ReduceOp<float, at::native::"
    "MeanOps<float, float, float, float>, unsigned int, float, 4>)"
)

# Module, function, name, calls, milliseconds of all calls: 1 ms together, 11 kernels.
_KERNELS = (
    ("features.2.conv", "conv2d", _FPROP, 1, 0.39),
    ("features.1.conv", "conv2d", f"void cutlass::Kernel2<{_SGEMM}>({_SGEMM}::Params)", 2, 0.28),
    ("features.0", "conv2d", _FPROP, 1, 0.2),
    (
        "classifier",
        "linear",
        "void gemv2T_kernel_val<int, int, float, float, 128>(int, int)",
        1,
        0.05,
    ),
    ("", "mean", MEAN, 1, 0.04),
    ("features.1", "add", ADD, 1, 0.015),
    ("", "copy_", "Memcpy DtoD (Device -> Device)", 1, 0.01),
    ("features.2", "add_", ADD, 1, 0.009),
    ("features.1", "relu_", RELU, 1, 0.005),
    ("features", "", "Memset (Device)", 1, 0.001),
)
_NUMBERS = {
    **{"": 11, "features": 8, "features.0": 1, "features.1": 4, "features.1.conv": 2},
    **{"features.2": 2, "features.2.conv": 1, "classifier": 1, "features.2.spare": 0},
}
# Milliseconds to launch a module, and of these what it takes itself.
_HOST = {
    "": (2.7, 0.4),
    "features": (2.0, 0.1),
    "features.0": (0.3, 0.3),
    "features.1": (0.9, 0.7),
    "features.1.conv": (0.2, 0.2),
    "features.2": (0.7, 0.4),
    "features.2.conv": (0.3, 0.3),
    "classifier": (0.3, 0.3),
}


def launch_bound(*, host: float = 1.0, device: float = 1.0) -> Profile:
    """A profile whose kernels the profiler saw; the device waits 60 % of a forward.

    Args:
        host, device: factors of the times on either clock.
    """
    gpu, record = on_gpu(), counted()
    assert record.ceilings is not None
    assert record.reconciliation is not None
    return record.model_copy(
        update={
            "environment": gpu.environment,
            "whole": summary(2.75 * max(host, device)),
            "whole_host": summary(2.7 * host),
            "process_medians": (2.74725e-3,),
            "layers": tuple(_row(row, host, device) for row in record.layers),
            "device_rounds": DeviceRounds(
                how="kernels",
                span=summary(3.0, n=300),
                idle=summary(3.0 - device),
                blocked=summary(1.1 * device, n=60),
            ),
            "kernels": tuple(_kernel(*kernel) for kernel in _KERNELS),
            "ceilings": record.ceilings.model_copy(
                update={"flops_per_s": 1.2e14, "bytes_per_s": 3e12, "threads": None}
            ),
            "reconciliation": record.reconciliation.model_copy(
                update={
                    **{"untouched_s": 2.74725e-3, "instrumented_s": 2.83e-3, "overhead": 1.03},
                    **{"overhead_low": 1.02, "overhead_high": 1.04, "layers_sum_s": 0.999e-3},
                    "layers_gap": 0.999 / 1.0989 - 1,
                }
            ),
            "absent": {},
            "notes": (),
        }
    )


def compute_bound() -> Profile:
    """The same where the device takes as long as the whole: 2.7 of 2.75 ms."""
    record = launch_bound()
    assert record.device_rounds is not None
    rounds = record.device_rounds.model_copy(update={"blocked": summary(2.7), "idle": summary(0.3)})
    return record.model_copy(update={"device_rounds": rounds})


def by_events() -> Profile:
    """Rows whose times are between events: nobody saw a kernel, or when the device was idle."""
    record = launch_bound()
    rounds = DeviceRounds(
        how="events", span=summary(1.1), blocked=summary(1.1), resolution_s=0.1e-3
    )
    rows = tuple(row.model_copy(update={"kernels": None}) for row in record.layers)
    return record.model_copy(update={"device_rounds": rounds, "layers": rows, "kernels": ()})


SAMPLES = {"device_rounds": launch_bound, "by_events": by_events}


def _row(row: LayerRow, host: float, device: float) -> LayerRow:
    both, own = _HOST.get(row.path, (None, None))
    on_host = {
        "host_inclusive": None if both is None else summary(both * host),
        "host_self": None if own is None else summary(own * host),
    }
    times = {"inclusive": _tenth(row.inclusive, device), "self_": _tenth(row.self_, device)}
    return row.model_copy(
        update={
            **times,
            **(on_host if row.kind == "module" else {"scaled": 1.0}),
            "kernels": _NUMBERS.get(row.path),
        }
    )


def _tenth(time: Summary | None, factor: float) -> Summary | None:
    if time is None:
        return None
    verdict = {"verdict": time.verdict, "missed": time.missed}
    return summary(time.mean * 100 * factor, n=time.n, **verdict)


def _kernel(module: str, function: str, name: str, calls: int, ms: float) -> KernelRow:
    return KernelRow(module=module, function=function, name=name, calls=calls, time=summary(ms))
