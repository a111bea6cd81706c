// Programmatic dependent launch: a kernel may be put on the device while the one before it still runs, and
// waits there for its results. Within a graph, too.
#pragma once
#include <cuda_runtime.h>

namespace dependent_launch {

// First thing in a kernel, before any global memory is touched. Harmless in one that was launched as usual.
__device__ inline void begin() {
    asm volatile("griddepcontrol.launch_dependents;");
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

template <typename... Arguments>
cudaError_t launch(
    void (*kernel)(Arguments...), dim3 grid, dim3 block, void* stream, bool dependent,
    const Arguments&... arguments
) {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.stream = static_cast<cudaStream_t>(stream);
    config.attrs = &attribute;
    config.numAttrs = dependent ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace dependent_launch
