// Launches from the host.
#pragma once
#include <cuda_runtime.h>

// `pdl`: programmatic dependent launch, the kernel may be put on the device while the one before it in the
// stream still runs. It has to wait for that one by itself (device.cuh).
template <typename... Arguments>
cudaError_t launch(void (*kernel)(Arguments...), dim3 grid, dim3 block, void* stream, bool pdl,
                   const Arguments&... arguments) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &attribute;
  int gpu = 0, generation = 0;
  if (cudaError_t error = cudaGetDevice(&gpu)) return error;
  if (cudaError_t error = cudaDeviceGetAttribute(&generation, cudaDevAttrComputeCapabilityMajor, gpu)) return error;
  config.numAttrs = pdl && generation >= 9 ? 1 : 0;  // Hopper and later have it
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}
