// What PyTorch and Python see of the simulated accelerator.
#include "device.h"
#include "operators.h"
#include "profiler.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty_memory_format);
  m.impl("empty_strided", &empty_strided);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("resize_", &resize_);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar);
  m.impl("set_.source_Storage", &at::native::set_);
  m.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
  m.impl("set_.source_Tensor", &at::native::set_tensor_);
  for (const char* name : {"convolution_overrideable", "convolution_backward_overrideable"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
  }
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFallthrough());
}

#define IN_LOWER_PRECISION(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define IN_SINGLE_PRECISION(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  AT_FORALL_LOWER_PRECISION_FP(IN_LOWER_PRECISION)
  AT_FORALL_FP32(IN_SINGLE_PRECISION)
}

extern "C" {

// Once, before the backend is used.
void sim_register() {
  static Hooks hooks;
  at::RegisterPrivateUse1HooksInterface(&hooks);
  libkineto::api().registerProfilerFactory([] { return std::make_unique<Profiler>(); });
}

struct Stated {
  int64_t kernel_ns, launch_ns, event_host_ns, event_queue_ns, limit_bytes;
  double bytes_per_ns, flops_per_ns;
  bool virtual_host, skip;
};

// New rules, and nothing that ran before; memory stays as it is.
void sim_rules(const Stated* stated) {
  Hold hold(lock);
  rules = Rules{
      stated->kernel_ns, stated->bytes_per_ns, stated->flops_per_ns, stated->launch_ns,
      stated->event_host_ns, stated->event_queue_ns, stated->limit_bytes, stated->virtual_host,
      stated->skip, {}};
  recipes.clear();
  kernels.clear();
  queue_end.clear();
  events_recorded = 0;
}

void sim_named_ns(const char* name, int64_t ns) {
  Hold hold(lock);
  rules.named_ns[name] = ns;
}

void sim_limit(int64_t bytes) {
  Hold hold(lock);
  rules.limit_bytes = bytes;
}

int64_t sim_now() {
  Hold hold(lock);
  return host_now();
}

// The host works for so long.
void sim_spend(int64_t ns) {
  host_spends(ns);
}

// A kernel of this name and length on the present queue; others of a graph cost the host nothing.
void sim_launch(const char* name, int64_t ns, bool first) {
  Hold hold(lock);
  int64_t cost = rules.launch_ns;
  rules.launch_ns = first ? cost : 0;
  enqueue(name, ns);
  rules.launch_ns = cost;
}

void sim_set_device(int device) {
  current_device = DeviceIndex(device);
}

int sim_device() {
  return current_device;
}

int64_t sim_kernels() {
  Hold hold(lock);
  return int64_t(kernels.size());
}

struct Shown {
  const char* name;
  int64_t start, length, device, stream;
};

void sim_kernel(int64_t index, Shown* shown) {
  Hold hold(lock);
  const Kernel& kernel = kernels[size_t(index)];
  *shown = {
      kernel.name.c_str(), kernel.start, kernel.end - kernel.start, kernel.device, kernel.stream};
}

int64_t sim_events() {
  Hold hold(lock);
  return events_recorded;
}

}  // extern "C"
