// What PyTorch and Python see of the simulated accelerator.
#include "device.h"
#include "operators.h"

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", &empty_memory_format);
  library.impl("empty_strided", &empty_strided);
  library.impl("as_strided", &at::native::as_strided_tensorimpl);
  library.impl("view", &at::native::view);
  library.impl("_reshape_alias", &at::native::_reshape_alias);
  library.impl("resize_", &resize_);
  library.impl("_copy_from", &copy_from);
  library.impl("_copy_from_and_resize", &copy_from_and_resize);
  library.impl("_local_scalar_dense", &local_scalar);
  library.impl("set_.source_Storage", &set_whole_storage);
  library.impl("set_.source_Storage_storage_offset", &set_storage);
  library.impl("set_.source_Tensor", &set_tensor);
  for (const char* name : {"convolution_overrideable", "convolution_backward_overrideable"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
  }
}

extern "C" {

// Once, before the backend is used.
void sim_register() {
  static Hooks hooks;
  at::RegisterPrivateUse1HooksInterface(&hooks);
  libkineto::api().registerProfilerFactory([] { return std::make_unique<Profiler>(); });
}

// Forget all times, queues and rules; memory stays as it is.
void sim_reset() {
  Hold hold(lock);
  int64_t now = virtual_now;
  rules = Rules();
  recipes.clear();
  kernels.clear();
  queue_end.clear();
  events_recorded = 0;
  virtual_now = now;
}

void sim_kernel_ns(int64_t ns) {
  Hold hold(lock);
  rules.kernel_ns = ns;
}

void sim_named_ns(const char* name, int64_t ns) {
  Hold hold(lock);
  rules.named_ns[name] = ns;
}

void sim_roof(double bytes_per_ns, double flops_per_ns) {
  Hold hold(lock);
  rules.bytes_per_ns = bytes_per_ns;
  rules.flops_per_ns = flops_per_ns;
}

void sim_costs(int64_t launch_ns, int64_t event_host_ns, int64_t event_queue_ns) {
  Hold hold(lock);
  rules.launch_ns = launch_ns;
  rules.event_host_ns = event_host_ns;
  rules.event_queue_ns = event_queue_ns;
}

void sim_host(bool is_virtual) {
  Hold hold(lock);
  rules.virtual_host = is_virtual;
  queue_end.clear();
}

void sim_skip(bool skip) {
  Hold hold(lock);
  rules.skip = skip;
}

void sim_limit(int64_t bytes) {
  Hold hold(lock);
  rules.limit_bytes = bytes;
}

int64_t sim_now() {
  Hold hold(lock);
  return host_now();
}

// The host works, as far as the virtual clock goes.
void sim_advance(int64_t ns) {
  Hold hold(lock);
  virtual_now += ns;
}

// A kernel of this length on the present queue.
void sim_sleep(int64_t ns) {
  enqueue("sim::sleep", ns);
}

void sim_set_device(int device) {
  current_device = c10::DeviceIndex(device);
}

int sim_device() {
  return current_device;
}

int64_t sim_kernels() {
  Hold hold(lock);
  return int64_t(kernels.size());
}

int64_t sim_kernel_length(int64_t index) {
  Hold hold(lock);
  return kernels[size_t(index)].end - kernels[size_t(index)].start;
}

int64_t sim_kernel_start(int64_t index) {
  Hold hold(lock);
  return kernels[size_t(index)].start;
}

const char* sim_kernel_name(int64_t index) {
  Hold hold(lock);
  return kernels[size_t(index)].name.c_str();
}

int64_t sim_events() {
  Hold hold(lock);
  return events_recorded;
}

}  // extern "C"
