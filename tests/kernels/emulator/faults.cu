// What the emulator has to find, and what it has to get right: for test_emulator.py, which says what each does.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cstdint>

#include "device.cuh"
#include "launch.cuh"

namespace {

constexpr int THREADS = 64;

struct Case {
  int which;
  const float* in;  // [64], or what the case says
  float* out;       // [64]
};

__device__ void fault_of_a_block(const Case& c) {
  __shared__ __align__(16) float values[THREADS];
  __shared__ device::Mbarrier barrier;
  const int thread = threadIdx.x;
  switch (c.which) {
    case 0: {  // none
      values[thread] = c.in[thread];
      __syncthreads();
      c.out[thread] = values[THREADS - 1 - thread];
      break;
    }
    case 1: {  // one lane votes, where the others shuffle
      c.out[thread] = thread == 5 ? __any_sync(device::kAllLanes, true)
                                  : __shfl_xor_sync(device::kAllLanes, 1.f, 1);
      break;
    }
    case 2: {  // one warp doesn't come to the barrier
      if (thread < 32) __syncthreads();
      break;
    }
    case 3: c.out[thread] = c.in[thread + 1]; break;
    case 4: c.out[thread - 1] = 1.f; break;
    case 5: const_cast<float*>(c.in)[thread] = 1.f; break;
    case 6: {  // four floats from the second on
      c.out[thread] = reinterpret_cast<const float4*>(c.in + 1)[0].x;
      break;
    }
    case 7: c.out[thread] = values[thread + 1]; break;
    case 8: {  // read without a barrier
      values[thread] = c.in[thread];
      c.out[thread] = values[THREADS - 1 - thread];
      break;
    }
    case 9: {  // used by threads that don't know that it is there
      if (thread == 0) barrier.init();
      if (thread == 0) barrier.expect(0);
      barrier.wait(0);
      break;
    }
    case 10: {  // fewer bytes are expected than are copied
      if (thread == 0) barrier.init(), barrier.expect(16), barrier.copy(values, c.in, 32);
      __syncthreads();
      barrier.wait(0);
      break;
    }
    case 11: {  // more
      if (thread == 0) barrier.init(), barrier.expect(48), barrier.copy(values, c.in, 32);
      __syncthreads();
      barrier.wait(0);
      break;
    }
    case 12: {  // not awaited
      if (thread == 0) barrier.init(), barrier.expect(256), barrier.copy(values, c.in, 256);
      __syncthreads();
      c.out[thread] = values[thread];
      break;
    }
    case 13: {  // copied and awaited, and 16 bytes by each thread
      if (thread == 0) barrier.init(), barrier.expect(256), barrier.copy(values, c.in, 256);
      __syncthreads();
      barrier.wait(0);
      __shared__ __align__(16) float again[THREADS];
      if (thread < 16) device::copy_16_bytes_async(again + 4 * thread, c.in + 4 * thread);
      device::wait_for_async_copies();
      __syncthreads();
      c.out[thread] = values[THREADS - 1 - thread] + again[thread];
      break;
    }
    case 14: {  // 8 rows of 8 bfloat16 or halves for each of four matrices, the second warp's transposed
      __shared__ __align__(16) uint16_t matrices[4][8][8];
      if (thread < 32)
        for (int i = 0; i < 8; ++i) matrices[thread / 8][thread % 8][i] = 64 * (thread / 8) + 8 * (thread % 8) + i;
      __syncthreads();
      uint32_t to[4];
      const uint32_t from = device::shared_address(matrices[thread % 32 / 8][thread % 8]);
      if (thread < 32)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(from));
      else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(from));
      c.out[thread] = to[2] & 0xffff, c.out[thread] += 1000 * (to[2] >> 16);
      break;
    }
    case 15: {
      while (*static_cast<const volatile float*>(c.in) == 0.f) {
      }
      break;
    }
  }
}

__global__ void block_kernel(const Case c) { fault_of_a_block(c); }

// Blocks of a cluster of two.
__global__ void __cluster_dims__(2, 1, 1) cluster_kernel(const Case c) {
  __shared__ __align__(16) float values[THREADS];
  __shared__ device::Mbarrier barrier;
  const int thread = threadIdx.x, rank = blockIdx.x;
  const bool waits_for_cluster = c.which != 20, late = c.which == 22;
  const bool ends = c.which == 21 || c.which == 24;
  if (thread == 0 && !late) barrier.init();
  if (thread == 0 && !late && c.which != 24) barrier.expect(sizeof(values));
  __syncthreads();
  if (waits_for_cluster) device::cluster_arrive(), device::cluster_wait();
  if (thread == 0 && late) barrier.init(), barrier.expect(sizeof(values));
  if (rank == 1 && ends) return;
  device::send(&values[thread], 1 - rank, c.in[thread] + rank, barrier);
  if (ends) return;
  barrier.wait(0);
  if (rank == 0) c.out[thread] = values[thread];
  if (c.which == 23) *device::in_block(&values[thread], 1 - rank) = 0.f;
}

}  // namespace

// Below 20 of a block, from there on of a cluster.
extern "C" int fault(int which, const float* in, float* out) {
  const Case c{which, in, out};
  return which < 20 ? launch(block_kernel, dim3(1), dim3(THREADS), nullptr, false, c)
                    : launch(cluster_kernel, dim3(2), dim3(THREADS), nullptr, false, c);
}

// Conversions of all `count` numbers, by 64 threads.
namespace {
struct Conversion {
  const uint16_t* bits;
  float *of_half, *of_bfloat16;
  const float* floats;
  uint16_t *half, *bfloat16;
  int count;
};
__global__ void convert_kernel(const Conversion c) {
  for (int i = threadIdx.x; i < c.count; i += blockDim.x) {
    c.of_half[i] = *reinterpret_cast<const __half*>(c.bits + i);
    c.of_bfloat16[i] = *reinterpret_cast<const __nv_bfloat16*>(c.bits + i);
    reinterpret_cast<__half*>(c.half)[i] = __half(c.floats[i]);
    reinterpret_cast<__nv_bfloat16*>(c.bfloat16)[i] = __nv_bfloat16(c.floats[i]);
  }
}
}  // namespace
extern "C" int convert(const uint16_t* bits, float* of_half, float* of_bfloat16, const float* floats, uint16_t* half,
                       uint16_t* bfloat16, int count) {
  return launch(convert_kernel, dim3(1), dim3(THREADS), nullptr, false,
                Conversion{bits, of_half, of_bfloat16, floats, half, bfloat16, count});
}
