// The simulated accelerator's kernels, shown to torch.profiler through Kineto's interface for
// plug-ins, each with the operator that launched it.
#pragma once

#include "device.h"

#include <kineto/libkineto.h>
#include <kineto/output_base.h>

namespace {

struct Session final : libkineto::IActivityProfilerSession {
  void start() override {
    Hold hold(lock);
    profiled.clear();
    profiling = true;
    auto wall = std::chrono::system_clock::now().time_since_epoch();
    shift = std::chrono::duration_cast<std::chrono::nanoseconds>(wall).count() - host_now();
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
    for (const Kernel& kernel : profiled) {
      buffer->emplace_activity(
          buffer->span, libkineto::ActivityType::CONCURRENT_KERNEL, kernel.name);
      auto& activity = *buffer->activities.back();
      activity.startTime = kernel.start + shift;
      activity.endTime = kernel.end + shift;
      activity.id = int32_t(kernel.correlation);
      activity.device = kernel.device;
      activity.resource = kernel.stream;
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
    operators_running.push_back(id);
  }
  void popCorrelationId() override {
    if (!operators_running.empty()) {
      operators_running.pop_back();
    }
  }

  int64_t shift = 0;  // from the host's clock to the profiler's
  std::unique_ptr<libkineto::CpuTraceBuffer> buffer = std::make_unique<libkineto::CpuTraceBuffer>();
};

struct Profiler final : libkineto::IActivityProfiler {
  using Kinds = std::set<libkineto::ActivityType>;
  const std::string own_name = "sim";
  const Kinds own_kinds = {libkineto::ActivityType::CONCURRENT_KERNEL};

  const std::string& name() const override {
    return own_name;
  }
  const Kinds& availableActivities() const override {
    return own_kinds;
  }
  std::unique_ptr<libkineto::IActivityProfilerSession> configure(
      const Kinds& kinds, const libkineto::Config&) override {
    bool asked = kinds.count(libkineto::ActivityType::CONCURRENT_KERNEL) > 0;
    return asked ? std::make_unique<Session>() : nullptr;
  }
  std::unique_ptr<libkineto::IActivityProfilerSession> configure(
      int64_t, int64_t, const Kinds& kinds, const libkineto::Config& config) override {
    return configure(kinds, config);
  }
};

}  // namespace
