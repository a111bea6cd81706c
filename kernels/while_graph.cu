// A loop on the device: one graph launch that repeats a graph while a flag in device memory is set.
// CUDA programming guide, "Conditional graph nodes" (CUDA >= 12.4).
#include <cuda_runtime.h>
#include <stdint.h>

__global__ void set_condition(cudaGraphConditionalHandle handle, const int32_t* running) {
  cudaGraphSetConditional(handle, *running != 0);
}

static cudaError_t add_condition(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after,
                                 cudaGraphConditionalHandle handle, const int32_t* running) {
  void* arguments[] = {&handle, &running};
  cudaKernelNodeParams kernel = {};
  kernel.func = reinterpret_cast<void*>(set_condition);
  kernel.gridDim = kernel.blockDim = dim3(1);
  kernel.kernelParams = arguments;
  return cudaGraphAddKernelNode(node, graph, after, after ? 1 : 0, &kernel);
}

// `body` is copied. The flag is read before the first round, too: nothing runs if it is 0 then.
extern "C" int while_graph_create(cudaGraph_t body, const int32_t* running, cudaGraphExec_t* executable) {
  cudaGraph_t graph;
  if (cudaError_t error = cudaGraphCreate(&graph, 0)) return error;
  auto build = [&]() -> cudaError_t {
    cudaGraphConditionalHandle handle;
    if (cudaError_t error = cudaGraphConditionalHandleCreate(&handle, graph, 0, cudaGraphCondAssignDefault)) return error;
    cudaGraphNode_t first, loop, round, last;
    if (cudaError_t error = add_condition(&first, graph, nullptr, handle, running)) return error;
    cudaGraphNodeParams params = {};
    params.type = cudaGraphNodeTypeConditional;
    params.conditional.handle = handle;
    params.conditional.type = cudaGraphCondTypeWhile;
    params.conditional.size = 1;
#if CUDART_VERSION >= 13000
    const cudaError_t added = cudaGraphAddNode(&loop, graph, &first, nullptr, 1, &params);
#else
    const cudaError_t added = cudaGraphAddNode(&loop, graph, &first, 1, &params);
#endif
    if (added) return added;
    const cudaGraph_t inside = params.conditional.phGraph_out[0];
    if (cudaError_t error = cudaGraphAddChildGraphNode(&round, inside, nullptr, 0, body)) return error;
    if (cudaError_t error = add_condition(&last, inside, &round, handle, running)) return error;
    return cudaGraphInstantiate(executable, graph, 0);
  };
  const cudaError_t error = build();
  cudaGraphDestroy(graph);
  return error;
}

extern "C" int while_graph_launch(cudaGraphExec_t executable, cudaStream_t stream) {
  return cudaGraphLaunch(executable, stream);
}

extern "C" int while_graph_destroy(cudaGraphExec_t executable) { return cudaGraphExecDestroy(executable); }
