#pragma once

// A simulated accelerator: values are computed on the CPU, time is reckoned by stated rules.
//
// It registers PyTorch's PrivateUse1 backend with two devices. Each has queues (streams); work
// that the host issues begins at max(the host's time, the end of the queue) and takes as long as
// the rules say. Events take the time of their queue. Kernels are shown to torch.profiler through
// Kineto's interface for plug-ins. No Python headers: tests/simulated/__init__.py drives it by
// ctypes.

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/Resize.h>
#include <ATen/native/TensorFactories.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <kineto/libkineto.h>
#include <kineto/output_base.h>
#include <torch/library.h>

#include <chrono>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::Stream;
using torch::jit::Stack;

constexpr auto kSim = c10::DeviceType::PrivateUse1;
constexpr int kDevices = 2;

// ---- The rules, set from Python. Nanoseconds; bytes and FLOPs a nanosecond. ----

struct Rules {
  int64_t kernel_ns = 1000;      // of every kernel, whatever it does
  double bytes_per_ns = 0;       // 0: bytes cost nothing
  double flops_per_ns = 0;       // 0: FLOPs cost nothing
  int64_t launch_ns = 0;         // of the host, for each kernel
  int64_t event_host_ns = 0;     // of the host, for each event
  int64_t event_queue_ns = 0;    // of the queue, for each event
  int64_t limit_bytes = int64_t(16) << 30;
  bool virtual_host = true;      // the host's time passes only by what it issues
  bool skip = false;             // a kernel seen before is not computed again
  std::map<std::string, int64_t> named_ns;  // of kernels with this name, instead of all above
};

struct Kernel {
  std::string name;
  int64_t start, end;
  int device;
  int64_t stream;
  uint64_t correlation;
};

std::recursive_mutex lock;
Rules rules;
int64_t virtual_now = 0;
std::map<std::pair<int, int64_t>, int64_t> queue_end;  // (device, stream) -> time
std::deque<Kernel> kernels;                            // all since the last reset
int64_t events_recorded = 0;
bool profiling = false;
std::deque<Kernel> profiled;
std::vector<uint64_t> correlations;  // of the operators being run, innermost last
thread_local DeviceIndex current_device = 0;
thread_local int64_t current_stream[kDevices] = {0, 0};

using Hold = std::lock_guard<std::recursive_mutex>;

int64_t real_now() {
  auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
}

int64_t host_now() {
  return rules.virtual_host ? virtual_now : real_now();
}

void host_spends(int64_t ns) {
  if (rules.virtual_host) {
    virtual_now += ns;
    return;
  }
  for (int64_t end = real_now() + ns; real_now() < end;) {
  }
}

void host_waits_until(int64_t time) {
  if (rules.virtual_host) {
    virtual_now = std::max(virtual_now, time);
    return;
  }
  for (int64_t left = time - real_now(); left > 0; left = time - real_now()) {
    std::this_thread::sleep_for(std::chrono::nanoseconds(left));
  }
}

int64_t& end_of(int device, int64_t stream) {
  return queue_end[{device, stream}];
}

void enqueue(const std::string& name, int64_t duration) {
  Hold hold(lock);
  host_spends(rules.launch_ns);
  int device = current_device;
  int64_t stream = current_stream[device];
  int64_t& end = end_of(device, stream);
  int64_t start = std::max(host_now(), end);
  end = start + duration;
  kernels.push_back(
      {name, start, end, device, stream, correlations.empty() ? 0 : correlations.back()});
  if (profiling) {
    profiled.push_back(kernels.back());
  }
}

void wait_for(int device) {
  int64_t last = 0;
  {
    Hold hold(lock);
    for (const auto& [queue, end] : queue_end) {
      last = queue.first == device ? std::max(last, end) : last;
    }
  }
  host_waits_until(last);
}

// ---- Memory, counted as PyTorch's caching allocators count it, without a cache's splitting. ----

struct Counter {
  int64_t allocated = 0, allocated_peak = 0, reserved = 0, reserved_peak = 0;
} counters[kDevices];

struct Block {
  void* data;
  int64_t bytes;
  int device;
  at::Tensor owner;  // the CPU tensor whose memory it is, if it is another's
};

void count(int device, int64_t bytes) {
  Hold hold(lock);
  Counter& counter = counters[device];
  if (counter.allocated + bytes > rules.limit_bytes) {
    TORCH_CHECK_WITH(
        OutOfMemoryError, false, "sim out of memory. Tried to allocate ",
        double(bytes) / (1 << 20), " MiB. Device ", device, " has a total capacity of ",
        double(rules.limit_bytes) / (1 << 20), " MiB.");
  }
  counter.allocated += bytes;
  counter.allocated_peak = std::max(counter.allocated_peak, counter.allocated);
  counter.reserved = std::max(counter.reserved, counter.allocated);
  counter.reserved_peak = std::max(counter.reserved_peak, counter.reserved);
}

void release(void* context) {
  std::unique_ptr<Block> block(static_cast<Block*>(context));
  Hold hold(lock);
  counters[block->device].allocated -= block->bytes;
  if (!block->owner.defined()) {
    std::free(block->data);
  }
}

struct Allocator final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t bytes) override {
    int device = current_device;
    if (bytes == 0) {
      return {nullptr, Device(kSim, device)};
    }
    count(device, int64_t(bytes));
    void* data = std::malloc(bytes);
    auto* block = new Block{data, int64_t(bytes), device, {}};
    return {data, block, &release, Device(kSim, device)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return nullptr;
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
  bool initialized() override {
    return true;
  }
  void emptyCache(c10::MempoolId_t) override {
    Hold hold(lock);
    for (Counter& counter : counters) {
      counter.reserved = counter.allocated;
    }
  }
  void recordStream(const c10::DataPtr&, Stream) override {}
  void resetAccumulatedStats(DeviceIndex) override {}
  void resetPeakStats(DeviceIndex device) override {
    Hold hold(lock);
    counters[device].allocated_peak = counters[device].allocated;
    counters[device].reserved_peak = counters[device].reserved;
  }
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(DeviceIndex device) override {
    Hold hold(lock);
    c10::CachingDeviceAllocator::DeviceStats stats;
    stats.allocated_bytes[0].current = counters[device].allocated;
    stats.allocated_bytes[0].peak = counters[device].allocated_peak;
    stats.reserved_bytes[0].current = counters[device].reserved;
    stats.reserved_bytes[0].peak = counters[device].reserved_peak;
    return stats;
  }
  std::pair<size_t, size_t> getMemoryInfo(DeviceIndex device) override {
    Hold hold(lock);
    return {size_t(rules.limit_bytes - counters[device].reserved), size_t(rules.limit_bytes)};
  }
} allocator;

REGISTER_ALLOCATOR(kSim, &allocator)

// ---- Devices, streams, events. ----

struct Event {
  int64_t time = 0;
  bool timing = false;
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override {
    return kSim;
  }
  Device exchangeDevice(Device device) const override {
    return Device(kSim, std::exchange(current_device, device.index()));
  }
  Device getDevice() const override {
    return Device(kSim, current_device);
  }
  void setDevice(Device device) const override {
    current_device = device.index();
  }
  void uncheckedSetDevice(Device device) const noexcept override {
    current_device = device.index();
  }
  DeviceIndex deviceCount() const noexcept override {
    return kDevices;
  }
  Stream getStream(Device device) const override {
    int index = device.has_index() ? device.index() : current_device;
    return Stream(Stream::UNSAFE, Device(kSim, index), current_stream[index]);
  }
  Stream getDefaultStream(Device device) const override {
    return Stream(Stream::DEFAULT, Device(kSim, device.has_index() ? device.index() : 0));
  }
  Stream getNewStream(Device device, int) const override {
    static int64_t last = 0;
    Hold hold(lock);
    int index = device.has_index() ? device.index() : current_device;
    return Stream(Stream::UNSAFE, Device(kSim, index), ++last);
  }
  Stream getStreamFromGlobalPool(Device device, bool) const override {
    return getNewStream(device, 0);
  }
  Stream exchangeStream(Stream stream) const override {
    int64_t& current = current_stream[stream.device_index()];
    return Stream(Stream::UNSAFE, stream.device(), std::exchange(current, stream.id()));
  }
  void record(
      void** event, const Stream& stream, const DeviceIndex, const c10::EventFlag flag)
      const override {
    Hold hold(lock);
    if (*event == nullptr) {
      *event = new Event{0, flag == c10::EventFlag::BACKEND_DEFAULT};
    }
    host_spends(rules.event_host_ns);
    int64_t& end = end_of(stream.device_index(), stream.id());
    end = std::max(host_now(), end) + rules.event_queue_ns;
    static_cast<Event*>(*event)->time = end;
    ++events_recorded;
  }
  void destroyEvent(void* event, const DeviceIndex) const noexcept override {
    delete static_cast<Event*>(event);
  }
  void block(void* event, const Stream& stream) const override {
    Hold hold(lock);
    int64_t& end = end_of(stream.device_index(), stream.id());
    end = std::max(end, static_cast<Event*>(event)->time);
  }
  bool queryEvent(void* event) const override {
    return event == nullptr || host_now() >= static_cast<Event*>(event)->time;
  }
  void synchronizeEvent(void* event) const override {
    if (event != nullptr) {
      host_waits_until(static_cast<Event*>(event)->time);
    }
  }
  double elapsedTime(void* first, void* second, const DeviceIndex) const override {
    TORCH_CHECK(first != nullptr && second != nullptr, "Both events must be recorded.");
    TORCH_CHECK(queryEvent(first) && queryEvent(second), "Both events must be completed.");
    // CUDA's interface gives a float of milliseconds, too.
    return float(double(static_cast<Event*>(second)->time - static_cast<Event*>(first)->time) / 1e6);
  }
  bool queryStream(const Stream& stream) const override {
    Hold hold(lock);
    return host_now() >= end_of(stream.device_index(), stream.id());
  }
  void synchronizeStream(const Stream& stream) const override {
    int64_t end = 0;
    {
      Hold hold(lock);
      end = end_of(stream.device_index(), stream.id());
    }
    host_waits_until(end);
  }
  void synchronizeDevice(const DeviceIndex device) const override {
    wait_for(device < 0 ? current_device : device);
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override {
    return true;
  }
  bool isAvailable() const override {
    return true;
  }
  bool hasPrimaryContext(DeviceIndex) const override {
    return true;
  }
  DeviceIndex deviceCount() const override {
    return kDevices;
  }
  void setCurrentDevice(DeviceIndex device) const override {
    current_device = device;
  }
  DeviceIndex getCurrentDevice() const override {
    return current_device;
  }
  DeviceIndex exchangeDevice(DeviceIndex device) const override {
    return device < 0 ? current_device : std::exchange(current_device, device);
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex device) const override {
    return exchangeDevice(device);
  }
  const at::Generator& getDefaultGenerator(DeviceIndex) const override {
    return at::globalContext().defaultGenerator(at::kCPU);
  }
  at::Generator getNewGenerator(DeviceIndex) const override {
    return at::globalContext().defaultGenerator(at::kCPU).clone();
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto data = allocator.allocate(bytes);
    std::memcpy(data.get(), storage.data(), std::min(bytes, storage.nbytes()));
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(data));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
};

// ---- Kernels, shown to the profiler. ----

const std::string kName = "sim";
const std::set<libkineto::ActivityType> kKinds = {libkineto::ActivityType::CONCURRENT_KERNEL};

struct Session final : libkineto::IActivityProfilerSession {
  void start() override {
    Hold hold(lock);
    profiled.clear();
    profiling = true;
  }
  void stop() override {
    Hold hold(lock);
    profiling = false;
  }
  std::vector<std::string> errors() override {
    return {};
  }
  void processTrace(libkineto::ActivityLogger&) override {}
  void processTrace(
      libkineto::ActivityLogger& logger, libkineto::getLinkedActivityCallback linked, int64_t,
      int64_t) override {
    Hold hold(lock);
    auto wall = std::chrono::system_clock::now().time_since_epoch();
    int64_t shift =
        std::chrono::duration_cast<std::chrono::nanoseconds>(wall).count() - host_now();
    for (const Kernel& kernel : profiled) {
      buffer->emplace_activity(
          buffer->span, libkineto::ActivityType::CONCURRENT_KERNEL, kernel.name);
      auto& activity = *buffer->activities.back();
      activity.startTime = kernel.start + shift;
      activity.endTime = kernel.end + shift;
      activity.id = int32_t(kernel.correlation);
      activity.device = kernel.device;
      activity.resource = int32_t(kernel.stream);
      activity.flow.id = uint32_t(kernel.correlation);
      activity.flow.type = libkineto::kLinkAsyncCpuGpu;
      activity.linked = linked(int32_t(kernel.correlation));
      logger.handleGenericActivity(activity);
    }
    profiled.clear();
  }
  std::unique_ptr<libkineto::DeviceInfo> getDeviceInfo() override {
    return nullptr;
  }
  std::vector<libkineto::ResourceInfo> getResourceInfos() override {
    return {};
  }
  std::unique_ptr<libkineto::CpuTraceBuffer> getTraceBuffer() override {
    return std::move(buffer);
  }
  void pushCorrelationId(uint64_t id) override {
    Hold hold(lock);
    correlations.push_back(id);
  }
  void popCorrelationId() override {
    Hold hold(lock);
    if (!correlations.empty()) {
      correlations.pop_back();
    }
  }
  std::unique_ptr<libkineto::CpuTraceBuffer> buffer =
      std::make_unique<libkineto::CpuTraceBuffer>();
};

struct Profiler final : libkineto::IActivityProfiler {
  const std::string& name() const override {
    return kName;
  }
  const std::set<libkineto::ActivityType>& availableActivities() const override {
    return kKinds;
  }
  std::unique_ptr<libkineto::IActivityProfilerSession> configure(
      const std::set<libkineto::ActivityType>& kinds, const libkineto::Config&) override {
    return kinds.count(libkineto::ActivityType::CONCURRENT_KERNEL) ? std::make_unique<Session>()
                                                                   : nullptr;
  }
  std::unique_ptr<libkineto::IActivityProfilerSession> configure(
      int64_t, int64_t, const std::set<libkineto::ActivityType>& kinds,
      const libkineto::Config& config) override {
    return configure(kinds, config);
  }
};
