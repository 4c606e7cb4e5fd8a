// Operators of the simulated accelerator: run on the CPU on the same memory, timed by the rules.
#pragma once

#include "device.h"

namespace {

using c10::IValue;
using c10::OperatorHandle;

bool on_sim(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kSim;
}

int64_t bytes_of(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.numel() * int64_t(tensor.itemsize()) : 0;
}

// A tensor on the device whose memory is a CPU tensor's, counted as the device's.
at::Tensor taken_over(const at::Tensor& cpu, int device, std::map<void*, c10::Storage>& storages) {
  auto found = storages.find(cpu.storage().unsafeGetStorageImpl());
  if (found == storages.end()) {
    int64_t bytes = int64_t(cpu.storage().nbytes());
    count(device, bytes);
    auto* block = new Block{cpu.storage().mutable_data(), bytes, device, cpu};
    c10::DataPtr data(block->data, block, &release, Device(kSim, device));
    c10::Storage storage(
        c10::Storage::use_byte_size_t(), bytes, std::move(data), &allocator, true);
    found = storages.emplace(cpu.storage().unsafeGetStorageImpl(), storage).first;
  }
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(found->second), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      cpu.dtype());
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(
      cpu.sizes(), cpu.strides(), cpu.storage_offset());
  return tensor;
}

// One call of an operator: its tensors on the device and their counterparts on the CPU.
struct Call {
  const OperatorHandle& op;
  std::string name;
  int device = -1;
  int64_t bytes = 0;
  double flops = 0;
  bool fresh = false;  // whether something was computed, not merely viewed
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;  // (device's, CPU's)
  std::map<void*, c10::Storage> storages;

  explicit Call(const OperatorHandle& handle) : op(handle), name(handle.schema().name()) {}

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
    auto options = tensor.options().device(at::kCPU);
    at::Tensor cpu = tensor.numel() == 0
        ? at::empty(tensor.sizes(), options)
        : at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), options);
    if (tensor.is_conj()) {
      cpu._set_conj(true);
    }
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
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorList()) {
        list.push_back(tensor ? std::optional<at::Tensor>(counterpart(*tensor)) : tensor);
      }
      return list;
    }
    if (value.isDevice() && value.toDevice().type() == kSim) {
      device = value.toDevice().has_index() ? value.toDevice().index() : current_device;
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

  // An argument that the CPU gave another size gets it on the device, too.
  void follow_sizes() {
    for (const auto& [mine, other] : pairs) {
      if (mine.sizes() != other.sizes()) {
        mine.resize_(other.sizes());
        if (other.numel() > 0) {
          auto options = mine.options().device(at::kCPU);
          at::from_blob(mine.data_ptr(), mine.sizes(), mine.strides(), options).copy_(other);
        }
        bytes += bytes_of(mine);
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

// Two for each multiplication with its addition; only what multiplies matrices counts.
double flops_of(const std::string& name, const std::vector<IValue>& arguments, int64_t made) {
  auto sizes = [&](size_t index) { return arguments[index].toTensor().sizes(); };
  if (name == "aten::mm" || name == "aten::bmm") {
    return 2.0 * double(made) * double(sizes(0).back());
  }
  if (name == "aten::addmm" || name == "aten::baddbmm") {
    return 2.0 * double(made) * double(sizes(1).back());
  }
  if (name == "aten::linear") {
    return 2.0 * double(made) * double(sizes(1).back());
  }
  if (name == "aten::convolution") {
    double kernel = 1;
    for (int64_t size : sizes(1).slice(1)) {
      kernel *= double(size);
    }
    bool transposed = arguments[6].toBool();
    return 2.0 * kernel * double(transposed ? arguments[0].toTensor().numel() : made);
  }
  if (name == "aten::convolution_backward") {
    double kernel = 1;
    for (int64_t size : sizes(2).slice(1)) {
      kernel *= double(size);
    }
    auto wanted = arguments[10].toBoolList();
    int products = int(wanted[0]) + int(wanted[1]);
    return 2.0 * kernel * double(arguments[0].toTensor().numel()) * products;
  }
  return 0;
}

// ---- Kernels that were seen before: where `skip` is on, only their outputs' shapes are kept. ----

struct Made {
  int argument;  // >= 0: the tensor argument with this number is returned itself
  std::vector<int64_t> sizes, strides;
  at::ScalarType type;
};

struct Recipe {
  std::vector<Made> outputs;
  int64_t duration;
};

std::map<std::string, std::optional<Recipe>> recipes;  // empty: its outputs depend on values

void describe(std::ostream& out, const IValue& value) {
  if (value.isTensor()) {
    const at::Tensor& tensor = value.toTensor();
    if (tensor.defined()) {
      out << tensor.dtype() << tensor.sizes() << tensor.strides() << tensor.device();
    }
  } else if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorVector()) {
      describe(out, tensor);
    }
  } else if (value.isOptionalTensorList()) {
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorList()) {
      describe(out, tensor ? IValue(*tensor) : IValue());
    }
  } else if (!value.isGenerator()) {
    out << value;
  }
  out << ';';
}

bool depends_on_values(const std::string& name) {
  for (const char* part : {"nonzero", "unique", "masked", "index", "nms", "roi", "bincount",
                           "histc", "multinomial", "random", "equal", "is_nonzero"}) {
    if (name.find(part) != std::string::npos) {
      return true;
    }
  }
  return false;
}

std::optional<Recipe> recipe_of(
    const Call& call, const std::vector<IValue>& outputs, int64_t duration) {
  Recipe recipe{{}, duration};
  for (const IValue& output : outputs) {
    if (!output.isTensor() || !output.toTensor().defined() || !on_sim(output.toTensor())) {
      return std::nullopt;
    }
    const at::Tensor& tensor = output.toTensor();
    int argument = -1;
    for (size_t index = 0; index < call.pairs.size(); ++index) {
      if (call.pairs[index].first.is_same(tensor)) {
        argument = int(index);
      } else if (call.pairs[index].first.storage().is_alias_of(tensor.storage())) {
        return std::nullopt;
      }
    }
    recipe.outputs.push_back(
        {argument, tensor.sizes().vec(), tensor.strides().vec(), tensor.scalar_type()});
  }
  return recipe;
}

void collect(const IValue& value, std::vector<at::Tensor>& tensors) {
  auto add = [&](const at::Tensor& tensor) {
    for (const at::Tensor& known : tensors) {
      if (known.is_same(tensor)) {
        return;
      }
    }
    if (on_sim(tensor)) {
      tensors.push_back(tensor);
    }
  };
  if (value.isTensor()) {
    add(value.toTensor());
  } else if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorVector()) {
      add(tensor);
    }
  } else if (value.isOptionalTensorList()) {
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorList()) {
      if (tensor) {
        add(*tensor);
      }
    }
  }
}

// Put what a known kernel would return on the stack. False: it is not known.
bool skipped(const std::string& key, const std::string& name, Stack* stack, size_t count) {
  auto known = recipes.find(key);
  if (known == recipes.end() || !known->second) {
    return false;
  }
  std::vector<at::Tensor> tensors;
  for (size_t index = stack->size() - count; index < stack->size(); ++index) {
    collect((*stack)[index], tensors);
  }
  Device device = tensors.empty() ? Device(kSim, current_device) : tensors[0].device();
  std::vector<IValue> outputs;
  for (const Made& made : known->second->outputs) {
    outputs.emplace_back(
        made.argument >= 0 ? tensors[made.argument]
                           : at::empty_strided(
                                 made.sizes, made.strides,
                                 at::TensorOptions().device(device).dtype(made.type)));
  }
  c10::OptionalDeviceGuard guard(device);
  enqueue(name, known->second->duration);
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
    const IValue& mask = stack->back();
    auto& weight = (*stack)[stack->size() - 8].toTensor();
    bool transposed = (*stack)[stack->size() - 4].toBool();
    int64_t groups = (*stack)[stack->size() - 2].toInt();
    int64_t channels = transposed ? weight.size(1) * groups : weight.size(0);
    IValue bias = mask.toBoolList()[2] ? IValue(std::vector<int64_t>{channels}) : IValue();
    stack->insert(stack->end() - 7, bias);
    return operator_named("aten::convolution_backward");
  }
  return op;
}

void run_on_cpu(const OperatorHandle& asked, c10::DispatchKeySet, Stack* stack) {
  OperatorHandle op = computed_by(asked, stack);
  size_t count = op.schema().arguments().size();
  Call call(op);
  std::string key;
  if (rules.skip && !depends_on_values(call.name)) {
    std::ostringstream text;
    text << call.name << '.' << op.schema().overload_name() << ' ';
    for (size_t index = stack->size() - count; index < stack->size(); ++index) {
      describe(text, (*stack)[index]);
    }
    key = text.str();
    if (skipped(key, call.name, stack, count)) {
      return;
    }
  }
  std::vector<IValue> arguments(stack->end() - int64_t(count), stack->end());
  stack->resize(stack->size() - count);
  for (const IValue& argument : arguments) {
    stack->push_back(call.to_cpu(argument));
  }
  call.device = call.device < 0 ? current_device : call.device;
  size_t before = stack->size() - count;
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  call.follow_sizes();
  std::vector<IValue> outputs(stack->begin() + int64_t(before), stack->end());
  stack->resize(before);
  for (IValue& output : outputs) {
    output = call.to_sim(output);
  }
  int64_t made = 0;
  for (const IValue& output : outputs) {
    made += made == 0 && output.isTensor() && output.toTensor().defined()
        ? output.toTensor().numel() : 0;
  }
  call.flops = flops_of(call.name, arguments, made);
  bool changes = op.schema().is_mutable();
  if (call.fresh || changes) {
    c10::OptionalDeviceGuard guard(Device(kSim, call.device));
    enqueue(call.name, call.duration());
  }
  if (!key.empty()) {
    recipes[key] = call.fresh || changes ? recipe_of(call, outputs, call.duration())
                                         : std::nullopt;
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
  // The memory is the host's, and new memory comes from the storage's own allocator.
  at::native::resize_impl_cpu_(self.unsafeGetTensorImpl(), size, std::nullopt);
  if (format) {
    self.unsafeGetTensorImpl()->empty_tensor_restride(*format);
  }
  return self;
}

// Between host and device, or within the device; the host waits unless it need not.
at::Tensor copy_from(const at::Tensor& self, const at::Tensor& to, bool non_blocking) {
  Call call(operator_named("aten::copy_"));
  at::Tensor source = call.counterpart(self), target = call.counterpart(to);
  bool known = rules.skip && on_sim(self) && on_sim(to);
  if (!known) {
    target.copy_(source);
  }
  bool both = on_sim(self) && on_sim(to);
  call.bytes = bytes_of(self) + (both ? bytes_of(to) : 0);
  {
    c10::OptionalDeviceGuard guard((on_sim(to) ? to : self).device());
    enqueue("aten::copy_", call.duration());
  }
  if (!both && !non_blocking) {
    wait_for((on_sim(to) ? to : self).device().index());
  }
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& to) {
  to.resize_(self.sizes());
  return copy_from(self, to, false);
}

at::Scalar local_scalar(const at::Tensor& self) {
  return at::_local_scalar_dense(at::empty({}, self.options().device(at::kCPU)).copy_(self));
}

at::Tensor& set_storage(
    at::Tensor& self, at::Storage source, int64_t offset, at::IntArrayRef size,
    at::IntArrayRef stride) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  impl->set_storage_offset(offset);
  if (stride.data() == nullptr || stride.empty()) {
    impl->set_sizes_contiguous(size);
  } else {
    impl->set_sizes_and_strides(size, stride);
  }
  return self;
}

at::Tensor& set_whole_storage(at::Tensor& self, at::Storage source) {
  int64_t count = int64_t(source.nbytes() / self.itemsize());
  return set_storage(self, std::move(source), 0, {count}, {});
}

at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& source) {
  return set_storage(
      self, source.storage(), source.storage_offset(), source.sizes(), source.strides());
}

}  // namespace
