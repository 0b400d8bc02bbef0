// The layers of a network with random weights, as the kernel bench times them.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "conv/conv2d.h"
#include "conv_u8/conv2d_u8.h"
#include "prepared/packed_store.h"

namespace voxpress {

struct Free {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t{64}); }
};
using Memory = std::unique_ptr<unsigned char, Free>;

// Zeros, 64-byte aligned.
Memory aligned(size_t bytes);

struct Release {
  void operator()(PackedWeights* packed) const { packed->release(); }
};

// One layer with weights of its own.
struct Layer {
  std::string name;
  Conv2dShape shape;
  Conv2dU8Shape u8;  // the same layer in mode fast
  bool residual = false;
  std::vector<uint8_t> codes;
  std::vector<float> palette, scale, bias;
  std::unique_ptr<PackedWeights, Release> packed;
  std::vector<int64_t> samples_ns;

  Conv2dWeights weights() const;
  int64_t macs() const;
};

class Network {
 public:
  // "resnet34" or "dfresnet56", with 80 mel bins and 32 to 256 channels; no layers for any other name.
  Network(const std::string& name, int64_t frames, int32_t bits);

  std::vector<Layer>& layers() { return layers_; }

 private:
  void add_resnet34(int64_t frames);
  void add_dfresnet56(int64_t frames);
  void add_embedding();
  // A layer behind the last one (or, for a shortcut, behind the one before it). Windows of 2x2 tile the input.
  const Conv2dShape& add(const std::string& name, const Conv2dShape& before, int64_t out, int64_t kernel,
                         int64_t stride);
  void fill(Layer* layer);
  void quantize();

  int32_t bits_;
  std::mt19937 random_{0};
  std::vector<Layer> layers_;
};

}  // namespace voxpress
