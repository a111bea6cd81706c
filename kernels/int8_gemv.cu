// y[M, N] = (x[M, K] · w[N, K]) * scale[N] + bias[N] with int8 weights, for M <= 8: limited by reading w once.
//
// A warp multiplies 8 rows of weights with all of x by mma.m16n8k16: the weights are the 8 columns, x is the 16
// rows, half of them padding, so one variant serves every M. The order of k is free as long as both sides have
// the same one: each lane takes 16 consecutive weights (one load of 16 bytes), four lanes a row, and the 16
// values of x beside them, and feeds both to four instructions. Nothing goes through shared memory but the sums
// of `split` warps that share rows, each with its part of K, added in the same order every time.

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "device.cuh"

namespace {

constexpr int WARP = 32;
constexpr int TILE = 8;     // rows of weights a warp takes, and the most rows of x
constexpr int VECTOR = 16;  // weights a lane takes at once
constexpr int LANES_PER_ROW = 4;  // that share a row of weights

struct Problem {
  const void *x, *weights, *scale, *bias;  // bias may be null
  void* out;
  int rows, n, k, split;
};

struct Fragment {
  uint32_t pairs[VECTOR / 2];
};

// Integers to floats without the slow conversion: the byte w + 128 becomes the mantissa of a number whose
// exponent makes its last bit 1, and what is too much is subtracted. Exact in each of the formats.
__device__ uint32_t biased(uint32_t four) { return four ^ 0x80808080u; }

__device__ Fragment weights_as(uint4 loaded, __half) {
  const uint32_t words[4] = {biased(loaded.x), biased(loaded.y), biased(loaded.z), biased(loaded.w)};
  const __half2 excess = __half2half2(__ushort_as_half(0x6480));  // 1024 + 128
  Fragment result;
#pragma unroll
  for (int i = 0; i < VECTOR / 2; ++i) {
    uint32_t pair = __byte_perm(words[i / 2], 0x64, i % 2 ? 0x4342 : 0x4140);  // 1024 + byte, twice
    const __half2 exact = __hsub2(*reinterpret_cast<__half2*>(&pair), excess);
    result.pairs[i] = *reinterpret_cast<const uint32_t*>(&exact);
  }
  return result;
}

__device__ Fragment weights_as(uint4 loaded, __nv_bfloat16) {
  const uint32_t words[4] = {biased(loaded.x), biased(loaded.y), biased(loaded.z), biased(loaded.w)};
  Fragment result;
#pragma unroll
  for (int i = 0; i < VECTOR / 2; ++i) {
    const uint32_t low = __byte_perm(words[i / 2], 0x4B000000, i % 2 ? 0x7442 : 0x7440);  // 2^23 + byte
    const uint32_t high = __byte_perm(words[i / 2], 0x4B000000, i % 2 ? 0x7443 : 0x7441);
    const float excess = 8388736.0f;  // 2^23 + 128
    // At most eight significant bits: the upper half of the float is the bfloat16.
    result.pairs[i] = __byte_perm(__float_as_uint(__uint_as_float(low) - excess),
                                  __float_as_uint(__uint_as_float(high) - excess), 0x7632);
  }
  return result;
}

__device__ void multiply(float (&sum)[4], const Fragment& x, const Fragment& w, int step, __half) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%5}, {%7,%8}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(x.pairs[2 * step]), "r"(0), "r"(x.pairs[2 * step + 1]), "r"(w.pairs[2 * step]),
        "r"(w.pairs[2 * step + 1]));
}

__device__ void multiply(float (&sum)[4], const Fragment& x, const Fragment& w, int step, __nv_bfloat16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%5}, {%7,%8}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(x.pairs[2 * step]), "r"(0), "r"(x.pairs[2 * step + 1]), "r"(w.pairs[2 * step]),
        "r"(w.pairs[2 * step + 1]));
}

// How 16 values of x become fragments, in a format that tensor cores multiply exactly with int8. `x` is read
// with plain loads: the kernel before may have written it a moment ago.
template <typename T>
struct Input {  // __half and __nv_bfloat16 are taken as they are
  using Format = T;
  static constexpr int PARTS = 1;
  static __device__ void load(const T* x, Fragment (&parts)[PARTS]) {
    *reinterpret_cast<uint4*>(&parts[0].pairs[0]) = reinterpret_cast<const uint4*>(x)[0];
    *reinterpret_cast<uint4*>(&parts[0].pairs[4]) = reinterpret_cast<const uint4*>(x)[1];
  }
};

template <>
struct Input<float> {  // the sum of three bfloat16, which have all 24 bits of the mantissa
  using Format = __nv_bfloat16;
  static constexpr int PARTS = 3;
  static __device__ void load(const float* x, Fragment (&parts)[PARTS]) {
#pragma unroll
    for (int i = 0; i < VECTOR / 4; ++i) {
      const float4 four = reinterpret_cast<const float4*>(x)[i];
      float2 rest[2] = {{four.x, four.y}, {four.z, four.w}};
#pragma unroll
      for (int part = 0; part < PARTS; ++part) {
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
          const __nv_bfloat162 rounded = __float22bfloat162_rn(rest[pair]);
          rest[pair].x -= __low2float(rounded);
          rest[pair].y -= __high2float(rounded);
          parts[part].pairs[2 * i + pair] = *reinterpret_cast<const uint32_t*>(&rounded);
        }
      }
    }
  }
};

__device__ uint4 load_once(const int8_t* address) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(address));
  return v;
}

// Warps of the largest block: 20 * 4 steps are K = 5120, the widest layer of Whisper-large, in one go.
template <int STEPS>
constexpr int MAX_WARPS = STEPS == 4 ? 20 : 8;

// The warp's part of K for its 8 rows of weights; the sums of x's row lane / 4 and two columns. STEPS loads of
// 16 bytes are in flight per lane before the first is used: a warp covers STEPS * 64 of K at once.
template <typename T, int STEPS>
__device__ float2 accumulate(const Problem& problem, int tile, int part, int lane) {
  using In = Input<T>;
  using Format = typename In::Format;
  const int row = lane / LANES_PER_ROW, quarter = lane % LANES_PER_ROW, vectors = problem.k / VECTOR;
  const size_t weights_row = min(tile * TILE + row, problem.n - 1);
  const int8_t* weights = static_cast<const int8_t*>(problem.weights) + weights_row * problem.k;
  const T* x = static_cast<const T*>(problem.x) + size_t(row) * problem.k;
  float sums[2][4] = {};  // two chains, for the latency of an instruction
  bool waited = false;
  for (int first = part * STEPS * LANES_PER_ROW; first < vectors; first += problem.split * STEPS * LANES_PER_ROW) {
    uint4 loaded[STEPS];
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
      const int vector = first + i * LANES_PER_ROW + quarter;
      loaded[i] = vector < vectors ? load_once(weights + vector * VECTOR) : make_uint4(0, 0, 0, 0);
    }
    if (!waited) device::wait_for_previous_kernel();  // then x is there, too
    waited = true;
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
      const int vector = first + i * LANES_PER_ROW + quarter;
      Fragment input[In::PARTS] = {};
      if (row < problem.rows && vector < vectors) In::load(x + vector * VECTOR, input);
      const Fragment factors = weights_as(loaded[i], Format{});
#pragma unroll
      for (int step = 0; step < VECTOR / 4; ++step)
#pragma unroll
        for (int p = 0; p < In::PARTS; ++p) multiply(sums[step % 2], input[p], factors, step, Format{});
    }
  }
  return make_float2(sums[0][0] + sums[1][0], sums[0][1] + sums[1][1]);
}

template <typename T>
__device__ void write(const Problem& problem, int row, int column, float sum) {
  if (row >= problem.rows || column >= problem.n) return;
  const T* bias = static_cast<const T*>(problem.bias);
  const float shift = bias ? float(bias[column]) : 0.0f;
  const float scale = float(static_cast<const T*>(problem.scale)[column]);
  static_cast<T*>(problem.out)[size_t(row) * problem.n + column] = T(sum * scale + shift);
}

template <typename T, int STEPS>
__global__ void __launch_bounds__(MAX_WARPS<STEPS>* WARP) int8_gemv_kernel(Problem problem) {
  extern __shared__ float2 partial[];
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int part = warp % problem.split;
  const int tile = blockIdx.x * (blockDim.x / WARP / problem.split) + warp / problem.split;
  device::let_next_kernel_begin();  // it may load its weights meanwhile
  float2 sum = accumulate<T, STEPS>(problem, tile, part, lane);
  if (problem.split > 1) {
    if (part > 0) partial[warp * WARP + lane] = sum;
    __syncthreads();
    if (part > 0) return;
    for (int other = 1; other < problem.split; ++other) {
      const float2 more = partial[(warp + other) * WARP + lane];
      sum.x += more.x;
      sum.y += more.y;
    }
  }
  const int row = lane / LANES_PER_ROW, column = tile * TILE + 2 * (lane % LANES_PER_ROW);
  write<T>(problem, row, column, sum.x);
  write<T>(problem, row, column + 1, sum.y);
}

template <typename T, int STEPS>
cudaError_t launch(const Problem& problem, int warps, bool overlap, cudaStream_t stream) {
  if (warps < 1 || warps > MAX_WARPS<STEPS> || problem.split < 1 || warps % problem.split)
    return cudaErrorInvalidConfiguration;
  const int tiles = (problem.n + TILE - 1) / TILE, tiles_per_block = warps / problem.split;
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3((tiles + tiles_per_block - 1) / tiles_per_block);
  config.blockDim = dim3(warps * WARP);
  config.dynamicSmemBytes = problem.split > 1 ? warps * WARP * sizeof(float2) : 0;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = overlap ? 1 : 0;
  return cudaLaunchKernelEx(&config, int8_gemv_kernel<T, STEPS>, problem);
}

template <typename T>
cudaError_t launch(const Problem& problem, int steps, int warps, bool overlap, cudaStream_t stream) {
  switch (steps) {
    case 4: return launch<T, 4>(problem, warps, overlap, stream);
    case 12: return launch<T, 12>(problem, warps, overlap, stream);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace

// dtype of x, scale, bias and out: 0 half, 1 bfloat16, 2 float. x and weights are aligned to 16 bytes, k is a
// multiple of 16. `split` warps share rows, `warps` are in a block, `steps` is 4 or 12; `overlap`: programmatic
// launch, which is right only if nothing but x depends on the kernel before.
extern "C" int int8_gemv(const void* x, const void* weights, const void* scale, const void* bias, void* out,
                         int dtype, int rows, int n, int k, int split, int warps, int steps, int overlap,
                         cudaStream_t stream) {
  if (rows < 1 || rows > TILE || n < 1 || k < VECTOR || k % VECTOR) return cudaErrorInvalidValue;
  const Problem problem = {x, weights, scale, bias, out, rows, n, k, split};
  switch (dtype) {
    case 0: return launch<__half>(problem, steps, warps, overlap, stream);
    case 1: return launch<__nv_bfloat16>(problem, steps, warps, overlap, stream);
    case 2: return launch<float>(problem, steps, warps, overlap, stream);
    default: return cudaErrorInvalidValue;
  }
}
