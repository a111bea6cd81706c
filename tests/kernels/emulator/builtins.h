// CUDA's built-in variables and functions. Those of a warp take all 32 lanes, as the kernels' do.
#pragma once
#include <algorithm>
#include <climits>
#include <cmath>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>

#include "ptx.h"
#include "threads.h"

using std::isnan;
template <typename A, typename B>
auto min(A a, B b) {
  using Both = std::common_type_t<A, B>;
  return static_cast<Both>(a) < static_cast<Both>(b) ? static_cast<Both>(a) : static_cast<Both>(b);
}
template <typename A, typename B>
auto max(A a, B b) {
  using Both = std::common_type_t<A, B>;
  return static_cast<Both>(a) < static_cast<Both>(b) ? static_cast<Both>(b) : static_cast<Both>(a);
}

template <typename To, typename From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "bits for bits");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
inline int __float_as_int(float value) { return same_bits<int>(value); }
inline float __int_as_float(int bits) { return same_bits<float>(bits); }
inline unsigned __float_as_uint(float value) { return same_bits<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return same_bits<float>(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(bits); }
inline float __expf(float x) { return expf(x); }
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline long long __float2ll_rn(float value) {  // out of range: the nearest, and NaN the smallest
  if (isnan(value)) return LLONG_MIN;
  return value >= 0x1p63f ? LLONG_MAX : value < -0x1p63f ? LLONG_MIN : llrintf(value);
}
inline float __ll2float_rn(long long value) { return static_cast<float>(value); }
inline float __int2float_rn(int value) { return static_cast<float>(value); }
inline float __uint2float_rn(unsigned value) { return static_cast<float>(value); }
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned bits) {
  return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (bits & 31));
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t both = static_cast<uint64_t>(y) << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned which = selector >> 4 * i & 15;
    unsigned byte = both >> 8 * (which & 7) & 255;
    if (which & 8) byte = byte & 128 ? 255 : 0;
    result |= byte << 8 * i;
  }
  return result;
}

template <typename T>
T __ldcg(const T* from) { return *from; }
template <typename T>
T __ldg(const T* from) { return *from; }

// One fiber runs at a time, so that these are atomic as they are.
template <typename T>
T atomicExch(T* at, T value) { return std::exchange(*at, value); }
template <typename T>
T atomicAdd(T* at, T value) { return std::exchange(*at, *at + value); }
template <typename T>
T atomicMax(T* at, T value) { return std::exchange(*at, std::max(*at, value)); }
template <typename T>
T atomicMin(T* at, T value) { return std::exchange(*at, std::min(*at, value)); }
template <typename T>
T atomicCAS(T* at, T expected, T value) { return std::exchange(*at, *at == expected ? value : *at); }

inline void check_mask(unsigned mask, emulator::Where where) {
  if (mask != ~0u) emulator::fail("a collective of some lanes: only those of whole warps are emulated", where);
}
inline void __syncwarp(unsigned mask = ~0u, WHERE) {
  check_mask(mask, where);
  emulator::exchange(0, "__syncwarp", where);
}
inline unsigned __ballot_sync(unsigned mask, bool yes, WHERE) {
  check_mask(mask, where);
  const uint64_t* given = emulator::exchange(yes, "a vote", where);
  unsigned votes = 0;
  for (int lane = 0; lane < 32; ++lane) votes |= static_cast<unsigned>(given[lane]) << lane;
  return votes;
}
inline bool __any_sync(unsigned mask, bool yes, WHERE) { return __ballot_sync(mask, yes, where) != 0; }
inline bool __all_sync(unsigned mask, bool yes, WHERE) { return __ballot_sync(mask, yes, where) == ~0u; }

template <typename T>
T from_lane(unsigned mask, T value, int lane, emulator::Where where) {
  check_mask(mask, where);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = emulator::exchange(bits, "a shuffle", where)[lane & 31];
  memcpy(&value, &bits, sizeof value);
  return value;
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, WHERE) { return from_lane(mask, value, lane, where); }
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int step, WHERE) {
  return from_lane(mask, value, static_cast<int>(threadIdx.x) ^ step, where);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned step, WHERE) {
  const int lane = threadIdx.x % 32;
  return from_lane(mask, value, lane + step < 32 ? lane + step : lane, where);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned step, WHERE) {
  const unsigned lane = threadIdx.x % 32;
  return from_lane(mask, value, lane >= step ? lane - step : lane, where);
}

template <typename T, typename Join>
T reduce(unsigned mask, T value, Join join, emulator::Where where) {
  check_mask(mask, where);
  const uint64_t* given = emulator::exchange(static_cast<uint64_t>(value), "a reduction", where);
  T result = static_cast<T>(given[0]);
  for (int lane = 1; lane < 32; ++lane) result = join(result, static_cast<T>(given[lane]));
  return result;
}
template <typename T>
T __reduce_max_sync(unsigned mask, T value, WHERE) { return reduce(mask, value, max<T, T>, where); }
template <typename T>
T __reduce_min_sync(unsigned mask, T value, WHERE) { return reduce(mask, value, min<T, T>, where); }
template <typename T>
T __reduce_add_sync(unsigned mask, T value, WHERE) { return reduce(mask, value, std::plus<T>(), where); }

inline void __syncthreads(WHERE) { emulator::sync_block(false, where); }
inline bool __syncthreads_or(bool yes, WHERE) { return emulator::sync_block(yes, where); }
inline bool __syncthreads_and(bool yes, WHERE) { return !emulator::sync_block(!yes, where); }
inline size_t __cvta_generic_to_shared(const void* pointer, WHERE) { return emulator::shared_address(pointer, where); }
