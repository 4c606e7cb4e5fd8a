// The simulated accelerator: its rules, queues, memory, streams and events.
//
// It registers PyTorch's backend PrivateUse1 with two devices. Each has queues (streams). What the
// host issues begins at max(the host's time, the end of the queue) and takes as long as the rules
// say. Events take the time of their queue. There are no Python headers: __init__.py drives it by
// ctypes.
#pragma once

#include <ATen/ATen.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>

namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::Stream;

constexpr auto kSim = c10::DeviceType::PrivateUse1;
constexpr int kDevices = 2;

// ---- The rules. Nanoseconds; bytes and FLOPs a nanosecond. ----

struct Rules {
  int64_t kernel_ns = 1000;    // of every kernel, before its bytes or FLOPs
  double bytes_per_ns = 0;     // 0: bytes cost nothing
  double flops_per_ns = 0;     // 0: FLOPs cost nothing
  int64_t launch_ns = 0;       // of the host, for each kernel
  int64_t event_host_ns = 0;   // of the host, for each event
  int64_t event_queue_ns = 0;  // of the queue, for each event
  int64_t limit_bytes = int64_t(16) << 30;
  bool virtual_host = true;  // the host's time passes only by what it issues
  bool skip = false;         // a kernel seen before is not computed again
  std::map<std::string, int64_t> named_ns;  // kernel -> its whole time, instead of all above
};

struct Kernel {
  std::string name;
  int64_t start, end;
  int device;
  int64_t stream;
  uint64_t correlation;  // by which the profiler knows the operator
};

std::recursive_mutex lock;
using Hold = std::lock_guard<std::recursive_mutex>;

Rules rules;
int64_t virtual_now = 0;
std::map<std::pair<int, int64_t>, int64_t> queue_end;  // (device, stream) -> time
std::deque<Kernel> kernels;                            // all since the last reset
int64_t events_recorded = 0;
bool profiling = false;
std::vector<Kernel> profiled;
thread_local std::vector<uint64_t> operators_running;  // the innermost last
thread_local DeviceIndex current_device = 0;
thread_local int64_t current_stream[kDevices] = {0, 0};

// ---- Time. ----

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
    Hold hold(lock);
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

int64_t end_of(int device) {
  Hold hold(lock);
  int64_t last = 0;
  for (const auto& [queue, end] : queue_end) {
    last = queue.first == device ? std::max(last, end) : last;
  }
  return last;
}

// On the present queue of the present device.
void enqueue(const std::string& name, int64_t duration) {
  Hold hold(lock);
  host_spends(rules.launch_ns);
  int device = current_device;
  int64_t stream = current_stream[device];
  int64_t& end = end_of(device, stream);
  int64_t start = std::max(host_now(), end);
  end = start + duration;
  uint64_t correlation = operators_running.empty() ? 0 : operators_running.back();
  kernels.push_back({name, start, end, device, stream, correlation});
  if (profiling) {
    profiled.push_back(kernels.back());
  }
}

// ---- Memory, counted as a caching allocator does, but without rounding and splitting. ----

struct Counter {
  int64_t allocated = 0, allocated_peak = 0, reserved = 0, reserved_peak = 0;
} counters[kDevices];

struct Block {
  void* data;
  int64_t bytes;
  int device;
  at::Tensor owner;  // the CPU tensor whose memory it is, where it is another's
  bool used = false;  // whether the CPU has read or written it
};

// Free memory that holds zeros still, by its size. The host of a real device does not write the
// device's memory: without this, clearing outputs that nobody computes took a third of its time.
std::unordered_map<int64_t, std::vector<void*>> clear;

// As PyTorch's allocators write a size.
std::string written(int64_t bytes) {
  const char* unit = bytes > (1 << 30) ? "GiB" : bytes > (1 << 20) ? "MiB" : "KiB";
  double size = double(bytes) / (bytes > (1 << 30) ? 1 << 30 : bytes > (1 << 20) ? 1 << 20 : 1 << 10);
  char text[32];
  std::snprintf(text, sizeof text, "%.2f %s", size, unit);
  return text;
}

void count(int device, int64_t bytes) {
  Hold hold(lock);
  Counter& counter = counters[device];
  TORCH_CHECK_WITH(
      OutOfMemoryError, counter.allocated + bytes <= rules.limit_bytes,
      "sim out of memory. Tried to allocate ", written(bytes), ". Device ", device,
      " has a total capacity of ", written(rules.limit_bytes), " of which ",
      written(rules.limit_bytes - counter.allocated), " is free.");
  counter.allocated += bytes;
  counter.allocated_peak = std::max(counter.allocated_peak, counter.allocated);
  counter.reserved = std::max(counter.reserved, counter.allocated);
  counter.reserved_peak = std::max(counter.reserved_peak, counter.reserved);
}

void release(void* context) {
  std::unique_ptr<Block> block(static_cast<Block*>(context));
  Hold hold(lock);
  counters[block->device].allocated -= block->bytes;
  if (block->owner.defined()) {
    return;
  }
  if (block->used) {
    std::free(block->data);
  } else {
    clear[block->bytes].push_back(block->data);
  }
}

void used_by_cpu(const c10::DataPtr& data) {
  if (auto* block = static_cast<Block*>(data.get_context())) {
    block->used = true;
  }
}

// Zeros, so that what is skipped is the same each time and no index lies outside.
void* zeros(int64_t bytes) {
  Hold hold(lock);
  std::vector<void*>& there = clear[bytes];
  if (there.empty()) {
    return std::calloc(size_t(bytes), 1);
  }
  void* data = there.back();
  there.pop_back();
  return data;
}

struct Allocator final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t bytes) override {
    Device device(kSim, current_device);
    if (bytes == 0) {
      return {nullptr, device};
    }
    count(device.index(), int64_t(bytes));
    void* data = zeros(int64_t(bytes));
    return {data, new Block{data, int64_t(bytes), device.index(), {}}, &release, device};
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
    for (auto& [bytes, free] : clear) {
      std::for_each(free.begin(), free.end(), &std::free);
    }
    clear.clear();
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

// The host's memory that a device reads by itself: a copy from it need not be waited for.
std::set<const void*> pinned;

bool is_pinned(const void* data) {
  Hold hold(lock);
  return pinned.count(data) > 0;
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* data = std::malloc(std::max<size_t>(bytes, 1));
    Hold hold(lock);
    pinned.insert(data);
    return {data, data, &free_pinned, Device(at::kCPU)};
  }
  static void free_pinned(void* data) {
    Hold hold(lock);
    pinned.erase(data);
    std::free(data);
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &free_pinned;
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
} pinned_allocator;

// ---- Devices, streams, events. ----

struct Event {
  int64_t time = 0;
};

int64_t time_of(void* event) {
  Hold hold(lock);
  return event == nullptr ? 0 : static_cast<Event*>(event)->time;
}

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override {
    return kSim;
  }
  Device exchangeDevice(Device device) const override {
    TORCH_CHECK(device.index() < kDevices, "There are ", kDevices, " simulated devices.");
    return Device(kSim, std::exchange(current_device, device.index()));
  }
  Device getDevice() const override {
    return Device(kSim, current_device);
  }
  void setDevice(Device device) const override {
    exchangeDevice(device);
  }
  void uncheckedSetDevice(Device device) const noexcept override {
    current_device = device.index();
  }
  DeviceIndex deviceCount() const noexcept override {
    return kDevices;
  }
  static DeviceIndex index_of(Device device) {
    return device.has_index() ? device.index() : current_device;
  }
  Stream getStream(Device device) const noexcept override {
    DeviceIndex index = index_of(device);
    return Stream(Stream::UNSAFE, Device(kSim, index), current_stream[index]);
  }
  Stream getDefaultStream(Device device) const override {
    return Stream(Stream::DEFAULT, Device(kSim, index_of(device)));
  }
  Stream getNewStream(Device device, int) const override {
    static int64_t last = 0;
    Hold hold(lock);
    return Stream(Stream::UNSAFE, Device(kSim, index_of(device)), ++last);
  }
  Stream getStreamFromGlobalPool(Device device, bool) const override {
    return getNewStream(device, 0);
  }
  Stream exchangeStream(Stream stream) const noexcept override {
    int64_t& current = current_stream[stream.device_index()];
    return Stream(Stream::UNSAFE, stream.device(), std::exchange(current, stream.id()));
  }
  void record(
      void** event, const Stream& stream, const DeviceIndex,
      const c10::EventFlag) const override {
    Hold hold(lock);
    if (*event == nullptr) {
      *event = new Event;
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
    end = std::max(end, time_of(event));
  }
  bool queryEvent(void* event) const override {
    return host_now() >= time_of(event);
  }
  void synchronizeEvent(void* event) const override {
    host_waits_until(time_of(event));
  }
  double elapsedTime(void* first, void* second, const DeviceIndex) const override {
    TORCH_CHECK(first != nullptr && second != nullptr, "Both events must be recorded.");
    TORCH_CHECK(queryEvent(first) && queryEvent(second), "Both events must be completed.");
    // A float, as CUDA's interface gives it.
    return float(double(time_of(second) - time_of(first)) / 1e6);
  }
  bool queryStream(const Stream& stream) const override {
    Hold hold(lock);
    return host_now() >= end_of(stream.device_index(), stream.id());
  }
  void synchronizeStream(const Stream& stream) const override {
    std::unique_lock<std::recursive_mutex> hold(lock);
    int64_t end = end_of(stream.device_index(), stream.id());
    hold.unlock();
    host_waits_until(end);
  }
  void synchronizeDevice(const DeviceIndex device) const override {
    host_waits_until(end_of(device < 0 ? current_device : device));
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
  bool isPinnedPtr(const void* data) const override {
    return is_pinned(data);
  }
  c10::Allocator* getPinnedMemoryAllocator() const override {
    return &pinned_allocator;
  }
  // Random values are the CPU's.
  const at::Generator& getDefaultGenerator(DeviceIndex) const override {
    return at::globalContext().defaultGenerator(at::kCPU);
  }
  at::Generator getNewGenerator(DeviceIndex) const override {
    return at::globalContext().defaultGenerator(at::kCPU).clone();
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    c10::OptionalDeviceGuard guard(storage.device());
    c10::DataPtr data = allocator.allocate(bytes);
    if (size_t kept = std::min(bytes, storage.nbytes())) {
      std::memcpy(data.get(), storage.data(), kept);
      used_by_cpu(data);
    }
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(data));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
};

}  // namespace
