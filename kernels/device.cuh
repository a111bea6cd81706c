// What the kernels share, mostly PTX: programmatic launches, copies into shared memory, thread-block clusters, tensor
// cores, sums over a warp.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

namespace device {

constexpr unsigned kAllLanes = 0xffffffffu;

// Wait until the kernels before this one in the stream are complete and their writes visible. Does nothing in a
// kernel that was launched without the programmatic attribute.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Allow the next kernel of the stream to be launched. It may then do whatever doesn't depend on this one.
__device__ __forceinline__ void let_next_kernel_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// A barrier in shared memory that bulk copies and messages from other blocks complete on. `init` and `expect` are for
// one thread, `copy` for whichever wants to copy, `wait` for all that read.
struct Mbarrier {
  uint64_t word;

  __device__ void init() {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&word)));
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __device__ void expect(uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&word)), "r"(bytes)
                 : "memory");
  }
  // to, from and bytes: multiples of 16.
  __device__ void copy(void* to, const void* from, uint32_t bytes) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(&word))
                 : "memory");
  }
  __device__ void wait(uint32_t phase) {
    asm volatile(
        "{\n .reg .pred done;\n"
        "again:\n mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
        " @done bra finished;\n bra again;\nfinished:\n}" ::"r"(shared_address(&word)),
        "r"(phase)
        : "memory");
  }
};

__device__ __forceinline__ void copy_16_bytes_async(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
__device__ __forceinline__ void wait_for_async_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Cluster barrier in two halves, without a fence: it says that the other blocks run and have made their barriers.
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

// The whole barrier: what the blocks wrote before it, also to one another, is read by all after it.
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  cluster_wait();
}

// The same variable of another block, for loads and stores.
template <typename T>
__device__ __forceinline__ T* in_block(T* mine, int rank) {
  T* remote;
  asm("mapa.u64 %0, %1, %2;" : "=l"(remote) : "l"(mine), "r"(rank));
  return remote;
}

__device__ __forceinline__ uint32_t address_in_block(const void* mine, int rank) {
  uint32_t remote;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(shared_address(mine)), "r"(rank));
  return remote;
}

// Store to the same variable of another block of the cluster, and count it at the same barrier there. Needs no
// fence: a fence would wait for all copies that are still on their way.
__device__ __forceinline__ void send(float* mine, int rank, float value, const Mbarrier& barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(
                   address_in_block(mine, rank)),
               "r"(__float_as_uint(value)), "r"(address_in_block(&barrier.word, rank))
               : "memory");
}

// The same with 16 bytes, aligned to as many.
__device__ __forceinline__ void send(float4* mine, int rank, float4 value, const Mbarrier& barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
                   address_in_block(mine, rank)),
               "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w), "r"(address_in_block(&barrier.word, rank))
               : "memory");
}

__device__ __forceinline__ void send(uint4* mine, int rank, uint4 value, const Mbarrier& barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
                   address_in_block(mine, rank)),
               "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w), "r"(address_in_block(&barrier.word, rank))
               : "memory");
}

// The same with 8 bytes.
__device__ __forceinline__ void send(uint2* mine, int rank, uint2 value, const Mbarrier& barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1, %2}, [%3];" ::"r"(
                   address_in_block(mine, rank)),
               "r"(value.x), "r"(value.y), "r"(address_in_block(&barrier.word, rank))
               : "memory");
}

// sum += a * b by tensor cores: a [16][16] and b [16][8] of half, 2 neighbours along k a register, sum [16][8].
// Lane 4g + t has, of a, rows g and g + 8 at k = 2t (a.x, a.y) and at k = 2t + 8 (a.z, a.w); of b, column g at
// k = 2t and k = 2t + 8; of the sum, columns 2t and 2t + 1 of row g (sum[0], sum[1]) and of row g + 8.
__device__ __forceinline__ void mma(float (&sum)[4], uint4 a, uint32_t b_low, uint32_t b_high) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b_low), "r"(b_high));
}

// Four matrices [8][8] of half. Lane l gives the address of row l % 8 of matrix l / 8; lane 4g + t gets column g
// of each, at rows 2t and 2t + 1.
__device__ __forceinline__ uint4 ldmatrix_transposed(const void* row) {
  uint4 columns;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(columns.x), "=r"(columns.y), "=r"(columns.z), "=r"(columns.w)
               : "r"(shared_address(row))
               : "memory");
  return columns;
}

// 2^x; what is too small for a normal number becomes 0. Exact for 0 and -inf.
__device__ __forceinline__ float exp2_approximately(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

template <int kLanes>
__device__ __forceinline__ float sum_over_lanes(float value) {
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

// Sums over the lanes of a warp of kValues values at once (a power of two), with half as many exchanges at each
// step. Returns the sum of value `lane / (32 / kValues)`. With kStep < 16: over 2 * kStep neighbours.
template <int kValues, int kStep = 16, int kSize>
__device__ __forceinline__ float sums_over_warp(float (&values)[kSize]) {
  static_assert(kStep == 0 || ((kValues & (kValues - 1)) == 0 && kValues <= 2 * kStep), "halved until one is left");
  if constexpr (kStep == 0) {
    return values[0];
  } else if constexpr (kValues == 1) {
    values[0] += __shfl_xor_sync(kAllLanes, values[0], kStep);
    return sums_over_warp<1, kStep / 2>(values);
  } else {
    const bool upper = threadIdx.x & kStep;
#pragma unroll
    for (int i = 0; i < kValues / 2; ++i) {
      const float given = upper ? values[i] : values[i + kValues / 2];
      const float kept = upper ? values[i + kValues / 2] : values[i];
      values[i] = kept + __shfl_xor_sync(kAllLanes, given, kStep);
    }
    return sums_over_warp<kValues / 2, kStep / 2>(values);
  }
}

}  // namespace device
