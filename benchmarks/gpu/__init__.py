"""What a machine with a GPU shows of layerbench: the steps that `benchmarks/gpu.sh` runs.

Each is a process of its own, ``python -m benchmarks.gpu STEP``, and writes its figures as it gets
them. A step drives the device through `layerbench.environment.devices` and PyTorch's general
interface, so that it runs on a CPU and on the simulated accelerator, too.
"""
