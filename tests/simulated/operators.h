// Operators of the simulated accelerator: computed by the CPU on the same memory, timed by the
// rules. What is only a view of other memory is no kernel.
#pragma once

#include "device.h"

#include <ATen/native/Resize.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

namespace {

using c10::IValue;
using c10::OperatorHandle;
using torch::jit::Stack;

bool on_sim(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kSim;
}

int64_t bytes_of(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.numel() * int64_t(tensor.itemsize()) : 0;
}

// Calls `use` with every defined tensor of an argument.
template <typename Use>
void each_tensor(const IValue& value, const Use& use) {
  if (value.isTensor() && value.toTensor().defined()) {
    use(value.toTensor());
  } else if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorVector()) {
      use(tensor);
    }
  } else if (value.isOptionalTensorList()) {
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
      if (tensor && tensor->defined()) {
        use(*tensor);
      }
    }
  }
}

// A tensor on the device whose memory is a CPU tensor's, counted as the device's.
at::Tensor taken_over(const at::Tensor& cpu, int device, std::map<void*, c10::Storage>& storages) {
  auto known = storages.find(cpu.storage().unsafeGetStorageImpl());
  if (known == storages.end()) {
    int64_t bytes = int64_t(cpu.storage().nbytes());
    count(device, bytes);
    auto* block = new Block{cpu.storage().mutable_data(), bytes, device, cpu};
    c10::DataPtr data(block->data, block, &release, Device(kSim, DeviceIndex(device)));
    c10::Storage storage(
        c10::Storage::use_byte_size_t(), bytes, std::move(data), &allocator, true);
    known = storages.emplace(cpu.storage().unsafeGetStorageImpl(), storage).first;
  }
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(known->second), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      cpu.dtype());
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(
      cpu.sizes(), cpu.strides(), cpu.storage_offset());
  return tensor;
}

// One call of an operator: its tensors on the device and their counterparts on the CPU.
struct Call {
  std::string name;
  int device = -1;
  int64_t bytes = 0;
  double flops = 0;
  bool fresh = false;    // whether something was computed, not merely viewed
  bool resized = false;  // whether an argument got another size
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;  // (the device's, the CPU's)
  std::map<void*, c10::Storage> storages;

  at::Tensor counterpart(const at::Tensor& tensor) {
    if (!on_sim(tensor)) {
      return tensor;
    }
    for (const auto& [mine, other] : pairs) {
      if (mine.is_same(tensor)) {
        return other;
      }
    }
    device = device < 0 ? tensor.device().index() : device;
    bytes += bytes_of(tensor);
    used_by_cpu(tensor.storage().data_ptr());
    auto options = at::TensorOptions().dtype(tensor.dtype()).device(at::kCPU);
    at::Tensor cpu = tensor.numel() == 0
        ? at::empty(tensor.sizes(), options)
        : at::for_blob(tensor.data_ptr(), tensor.sizes())
              .strides(tensor.strides())
              .options(options)
              .allocator(c10::GetCPUAllocator())
              .resizeable_storage()
              .make_tensor();
    cpu._set_conj(tensor.is_conj());
    cpu._set_neg(tensor.is_neg());
    pairs.emplace_back(tensor, cpu);
    return cpu;
  }

  IValue to_cpu(const IValue& value) {
    if (value.isTensor()) {
      return counterpart(value.toTensor());
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) {
        list.push_back(counterpart(tensor));
      }
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
        list.push_back(tensor ? std::optional<at::Tensor>(counterpart(*tensor)) : std::nullopt);
      }
      return list;
    }
    if (value.isDevice() && value.toDevice().type() == kSim) {
      device = Guard::index_of(value.toDevice());
      return Device(at::kCPU);
    }
    return value;
  }

  // What the CPU returned, on the device: an argument itself, a view of one, or a new tensor.
  at::Tensor to_sim(const at::Tensor& cpu) {
    if (!cpu.defined()) {
      return cpu;
    }
    for (const auto& [mine, other] : pairs) {
      if (other.is_same(cpu)) {
        return mine;
      }
    }
    for (const auto& [mine, other] : pairs) {
      if (other.storage().is_alias_of(cpu.storage())) {
        return at::as_strided(
            mine, cpu.sizes(), cpu.strides(), mine.storage_offset() + cpu.storage_offset());
      }
    }
    bytes += bytes_of(cpu);
    fresh = true;
    return taken_over(cpu, device, storages);
  }

  IValue to_sim(const IValue& value) {
    if (value.isTensor()) {
      return to_sim(value.toTensor());
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) {
        list.push_back(to_sim(tensor));
      }
      return list;
    }
    return value;
  }

  // An argument that the CPU gave another size, or other memory on the way, is followed.
  void follow_sizes() {
    for (const auto& [mine, other] : pairs) {
      if (mine.sizes() != other.sizes()) {
        resized = true;
        mine.resize_(other.sizes());
        bytes += bytes_of(mine);
      }
      if (other.numel() > 0 && other.data_ptr() != mine.data_ptr()) {
        auto options = at::TensorOptions().dtype(mine.dtype()).device(at::kCPU);
        at::from_blob(mine.data_ptr(), mine.sizes(), mine.strides(), options).copy_(other);
      }
    }
  }

  int64_t duration() const {
    auto named = rules.named_ns.find(name);
    if (named != rules.named_ns.end()) {
      return named->second;
    }
    double by_bytes = rules.bytes_per_ns > 0 ? double(bytes) / rules.bytes_per_ns : 0;
    double by_flops = rules.flops_per_ns > 0 ? flops / rules.flops_per_ns : 0;
    return rules.kernel_ns + int64_t(std::llround(std::max(by_bytes, by_flops)));
  }
};

// Two for a multiplication with its addition; only what multiplies matrices counts.
double flops_of(const std::string& name, const std::vector<IValue>& arguments, int64_t made) {
  auto sizes = [&](size_t index) { return arguments[index].toTensor().sizes(); };
  auto window = [&](size_t weight) {
    double size = 1;
    for (int64_t length : sizes(weight).slice(1)) {
      size *= double(length);
    }
    return size;
  };
  if (name == "aten::mm" || name == "aten::bmm") {
    return 2.0 * double(made) * double(sizes(0).back());
  }
  if (name == "aten::addmm" || name == "aten::baddbmm") {
    return 2.0 * double(made) * double(sizes(1).back());
  }
  if (name == "aten::convolution") {
    bool transposed = arguments[6].toBool();
    return 2.0 * window(1) * double(transposed ? arguments[0].toTensor().numel() : made);
  }
  if (name == "aten::convolution_backward") {
    auto wanted = arguments[10].toBoolList();  // of the input, of the weight, of the bias
    int products = int(wanted.get(0)) + int(wanted.get(1));
    bool transposed = arguments[7].toBool();
    return 2.0 * window(2) * double(arguments[transposed ? 1 : 0].toTensor().numel()) * products;
  }
  return 0;
}

// ---- Kernels that were seen before: where `skip` is on, only their outputs' shapes are made. ----

struct Output {
  int argument;  // >= 0: the tensor argument with this number is returned itself
  std::vector<int64_t> sizes, strides;
  at::ScalarType type;
};

struct Recipe {
  std::vector<Output> outputs;
  int64_t duration;
};

std::unordered_map<std::string, Recipe> recipes;  // what was called, and with what

void add(std::string& key, int64_t number) {
  key.append(reinterpret_cast<const char*>(&number), sizeof number);
}

void add(std::string& key, const IValue& value) {
  each_tensor(value, [&](const at::Tensor& tensor) {
    add(key, int64_t(tensor.scalar_type()) * 256 + int64_t(tensor.device().index()));
    for (int64_t size : tensor.sizes()) {
      add(key, size);
    }
    for (int64_t stride : tensor.strides()) {
      add(key, stride);
    }
  });
  if (value.isInt()) {
    add(key, value.toInt());
  } else if (value.isIntList()) {
    for (int64_t number : value.toIntVector()) {
      add(key, number);
    }
  } else if (!value.isTensor() && !value.isTensorList() && !value.isOptionalTensorList() &&
             !value.isNone() && !value.isGenerator()) {
    std::ostringstream text;
    text << value;
    key += text.str();
  }
  key += ';';
}

// Whether what it returns has a shape that follows from values.
bool follows_values(const std::string& name) {
  static const std::set<std::string> names = {
      "aten::index", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::bincount",
      "aten::repeat_interleave", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive",
      "torchvision::nms"};
  return names.count(name) > 0;
}

// Whether the host has to wait for it: an index does not, unless it is a mask.
bool is_waited_for(const std::string& name, const std::vector<IValue>& arguments) {
  bool masked = name != "aten::index";
  if (!masked) {
    each_tensor(arguments[1], [&](const at::Tensor& index) {
      masked = masked || index.scalar_type() == at::kBool || index.scalar_type() == at::kByte;
    });
  }
  return masked && follows_values(name);
}

// Nothing where what it returns cannot be made from shapes alone.
std::optional<Recipe> recipe_of(const Call& call, const std::vector<IValue>& outputs) {
  Recipe recipe{{}, call.duration()};
  for (const IValue& output : outputs) {
    if (!output.isTensor() || !on_sim(output.toTensor())) {
      return std::nullopt;
    }
    const at::Tensor& tensor = output.toTensor();
    int argument = -1;
    for (size_t index = 0; index < call.pairs.size(); ++index) {
      const at::Tensor& other = call.pairs[index].first;
      if (other.is_same(tensor)) {
        argument = int(index);
      } else if (argument < 0 && other.storage().is_alias_of(tensor.storage())) {
        return std::nullopt;
      }
    }
    recipe.outputs.push_back(
        {argument, tensor.sizes().vec(), tensor.strides().vec(), tensor.scalar_type()});
  }
  return recipe;
}

// Puts what a known kernel would return on the stack. False: it is not known.
bool skipped(const std::string& key, const std::string& name, Stack* stack, size_t count) {
  std::unique_lock<std::recursive_mutex> hold(lock);
  auto known = recipes.find(key);
  if (known == recipes.end()) {
    return false;
  }
  Recipe recipe = known->second;
  hold.unlock();
  std::vector<at::Tensor> tensors;  // as a call's pairs
  for (size_t index = stack->size() - count; index < stack->size(); ++index) {
    each_tensor((*stack)[index], [&](const at::Tensor& tensor) {
      auto same = [&](const at::Tensor& other) { return other.is_same(tensor); };
      if (on_sim(tensor) && std::none_of(tensors.begin(), tensors.end(), same)) {
        tensors.push_back(tensor);
      }
    });
  }
  Device device = tensors.empty() ? Device(kSim, current_device) : tensors[0].device();
  c10::OptionalDeviceGuard guard(device);
  auto options = at::TensorOptions().device(device);
  std::vector<IValue> outputs;
  for (const Output& made : recipe.outputs) {
    outputs.emplace_back(
        made.argument >= 0 ? tensors[size_t(made.argument)]
                           : at::empty_strided(made.sizes, made.strides, options.dtype(made.type)));
  }
  enqueue(name, recipe.duration);
  stack->resize(stack->size() - count);
  stack->insert(stack->end(), outputs.begin(), outputs.end());
  return true;
}

// ---- The operators. ----

OperatorHandle operator_named(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
}

// Which operator computes this one on the CPU; its arguments are changed accordingly.
OperatorHandle computed_by(const OperatorHandle& op, Stack* stack) {
  if (op.schema().name() == "aten::convolution_overrideable") {
    return operator_named("aten::convolution");
  }
  if (op.schema().name() == "aten::convolution_backward_overrideable") {
    size_t end = stack->size();
    const at::Tensor& weight = (*stack)[end - 8].toTensor();
    bool transposed = (*stack)[end - 4].toBool();
    int64_t groups = (*stack)[end - 2].toInt();
    int64_t channels = transposed ? weight.size(1) * groups : weight.size(0);
    bool with_bias = (*stack)[end - 1].toBoolList().get(2);
    IValue bias = with_bias ? IValue(std::vector<int64_t>{channels}) : IValue();
    stack->insert(stack->end() - 7, bias);
    return operator_named("aten::convolution_backward");
  }
  return op;
}

struct Silent final : c10::WarningHandler {
  void process(const c10::Warning&) override {}
} silent;

void run_on_cpu(const OperatorHandle& asked, c10::DispatchKeySet, Stack* stack) {
  OperatorHandle op = computed_by(asked, stack);
  size_t count = op.schema().arguments().size();
  Call call;
  call.name = op.schema().name();
  std::string key;
  if (rules.skip && !follows_values(call.name)) {
    key = call.name + '.' + op.schema().overload_name() + ' ';
    std::vector<const void*> seen;  // which arguments are one tensor: `out` may be another one, too
    for (size_t index = stack->size() - count; index < stack->size(); ++index) {
      add(key, (*stack)[index]);
      each_tensor((*stack)[index], [&](const at::Tensor& tensor) {
        const void* own = tensor.unsafeGetTensorImpl();
        add(key, int64_t(std::find(seen.begin(), seen.end(), own) - seen.begin()));
        seen.push_back(own);
      });
    }
    if (skipped(key, call.name, stack, count)) {
      return;
    }
  }
  size_t before = stack->size() - count;
  std::vector<IValue> arguments(stack->begin() + int64_t(before), stack->end());
  stack->resize(before);
  for (const IValue& argument : arguments) {
    stack->push_back(call.to_cpu(argument));
  }
  call.device = call.device < 0 ? current_device : call.device;
  c10::OptionalDeviceGuard guard(Device(kSim, DeviceIndex(call.device)));
  {
    // Some operators give their output an intermediate size first, of which the CPU warns.
    c10::WarningUtils::WarningHandlerGuard quiet(&silent);
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  }
  call.follow_sizes();
  std::vector<IValue> outputs(stack->begin() + int64_t(before), stack->end());
  stack->resize(before);
  int64_t made = 0;
  for (IValue& output : outputs) {
    output = call.to_sim(output);
    bool first = made == 0 && output.isTensor() && output.toTensor().defined();
    made = first ? output.toTensor().numel() : made;
  }
  call.flops = flops_of(call.name, arguments, made);
  if (call.fresh || op.schema().is_mutable()) {
    enqueue(call.name, call.duration());
    auto recipe = key.empty() || call.resized ? std::nullopt : recipe_of(call, outputs);
    if (recipe) {
      Hold hold(lock);
      recipes.emplace(key, *recipe);
    }
  }
  if (is_waited_for(call.name, arguments)) {
    host_waits_until(end_of(call.device));
  }
  stack->insert(stack->end(), outputs.begin(), outputs.end());
}

at::Tensor empty_memory_format(
    at::IntArrayRef size, std::optional<at::ScalarType> type, std::optional<at::Layout>,
    std::optional<Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(
      size, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      c10::dtype_or_default(type), format);
}

at::Tensor empty_strided(
    at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> type,
    std::optional<at::Layout>, std::optional<Device> device, std::optional<bool>) {
  c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(
      size, stride, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      c10::dtype_or_default(type));
}

const at::Tensor& resize_(
    const at::Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat> format) {
  c10::OptionalDeviceGuard guard(self.device());
  // The memory is the host's, and more of it comes from the storage's own allocator.
  at::native::resize_impl_cpu_(self.unsafeGetTensorImpl(), size, std::nullopt);
  if (format) {
    self.unsafeGetTensorImpl()->empty_tensor_restride(*format);
  }
  return self;
}

// Between host and device, or on the device. The host waits where a GPU lets it wait: for what it
// reads itself, and until memory that is not pinned was read.
at::Tensor copy_from(const at::Tensor& self, const at::Tensor& to, bool non_blocking) {
  if (self.numel() == 0) {
    return to;
  }
  bool both = on_sim(self) && on_sim(to);
  const at::Tensor& on_device = on_sim(to) ? to : self;
  const at::Tensor& on_host = on_sim(to) ? self : to;
  Call call;
  call.name = "aten::copy_";
  at::Tensor source = call.counterpart(self), target = call.counterpart(to);
  if (!rules.skip || !both) {
    target.copy_(source);
  }
  call.bytes = bytes_of(self) + (both ? bytes_of(to) : 0);
  c10::OptionalDeviceGuard guard(on_device.device());
  enqueue(call.name, call.duration());
  if (!both && !(non_blocking && is_pinned(on_host.storage().data()))) {
    host_waits_until(end_of(on_device.device().index()));
  }
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& to) {
  to.resize_(self.sizes());
  return copy_from(self, to, false);
}

at::Scalar local_scalar(const at::Tensor& self) {
  auto options = at::TensorOptions().dtype(self.dtype()).device(at::kCPU);
  return at::_local_scalar_dense(at::empty({}, options).copy_(self));
}

}  // namespace
