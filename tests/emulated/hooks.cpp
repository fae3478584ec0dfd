// What torch's own code asks of a CUDA build before it lets a tensor be called one: which device is current, and that there are some.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/FakeGuardImpl.h>

using Guard = c10::impl::FakeGuardImpl<c10::DeviceType::CUDA>;
C10_REGISTER_GUARD_IMPL(CUDA, Guard)
static const Guard guard;

extern "C" int current_device() { return guard.getDevice().index(); }
extern "C" void set_device(int index) { guard.setDevice(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index))); }

namespace at {
// torch looks the hooks up by this name, once: load this before it is imported.
struct CUDAHooks : public CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return false; }
  DeviceIndex deviceCount() const override { return c10::impl::kFakeGuardImplMaxDevices; }
  int getNumGPUs() const override { return c10::impl::kFakeGuardImplMaxDevices; }
  DeviceIndex current_device() const override { return guard.getDevice().index(); }
  DeviceIndex getCurrentDevice() const override { return guard.getDevice().index(); }
  void setCurrentDevice(DeviceIndex index) const override { guard.setDevice(c10::Device(c10::DeviceType::CUDA, index)); }
  DeviceIndex exchangeDevice(DeviceIndex index) const override { return guard.exchangeDevice(c10::Device(c10::DeviceType::CUDA, index)).index(); }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const override { return exchangeDevice(index); }
  bool isPinnedPtr(const void*) const override { return false; }
};
using at::CUDAHooksRegistry;
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at
