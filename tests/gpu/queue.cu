// A small CUDA program with a known shape: 200 kernels of about 20 us, a host pause of 100 us before each of the
// second hundred. A profiler should find about 100 launch gaps of 100 us or more.
#include <chrono>
#include <cstdio>

__global__ void spin(long long cycles) {
  const long long start = clock64();
  while (clock64() - start < cycles) {
  }
}

static void pause_us(int us) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(us);
  while (std::chrono::steady_clock::now() < end) {
  }
}

int main() {
  spin<<<1, 1>>>(1000);
  cudaDeviceSynchronize();
  for (int i = 0; i < 200; ++i) {
    if (i >= 100) {
      cudaDeviceSynchronize();
      pause_us(100);
    }
    spin<<<1, 1>>>(40000);
  }
  const cudaError_t error = cudaDeviceSynchronize();
  std::printf("%s\n", cudaGetErrorString(error));
  return error == cudaSuccess ? 0 : 1;
}
