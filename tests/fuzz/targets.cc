// Everything in C++ that reads bytes from outside, behind libFuzzer's entry point. The first byte chooses the reader,
// the rest is its input. Nothing here checks results: no crash, no sanitizer report and no leak is the whole demand.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "archive.h"
#include "base/checked.h"
#include "conv/conv2d.h"
#include "conv_u8/conv2d_u8.h"
#include "errors.h"
#include "frontend/chunks.h"
#include "frontend/fbank.h"
#include "journal.h"
#include "json.h"
#include "manifest.h"
#include "options.h"
#include "safetensors.h"
#include "signature.h"
#include "tflite_file.h"
#include "voice.h"

namespace {

constexpr int64_t kSmall = 1 << 16;  // elements of a tensor that is really allocated and computed

struct Bytes {
  const uint8_t* data;
  size_t size;

  template <typename T>
  T take() {
    T value = {};
    const size_t count = std::min(size, sizeof value);
    if (count > 0) std::memcpy(&value, data, count);
    data += count;
    size -= count;
    return value;
  }
};

std::string_view text_of(Bytes input) { return {reinterpret_cast<const char*>(input.data), input.size}; }

void json(Bytes input) {
  try {
    voxpress::harness::parse_json(text_of(input));
  } catch (const voxpress::harness::JsonError&) {
  }
}

// Calls read(path) for a file of the input's bytes.
template <typename Read>
void as_file(Bytes input, Read read) {
  const int file = memfd_create("fuzz", 0);
  if (file < 0) return;
  if (write(file, input.data, input.size) == static_cast<ssize_t>(input.size)) {
    try {
      read("/proc/self/fd/" + std::to_string(file));
    } catch (const voxpress::harness::InputError&) {
    }
  }
  close(file);
}

void safetensors(Bytes input) {
  as_file(input, [](const std::string& path) {
    const voxpress::harness::SafetensorsFile found(path);
    for (const auto& tensor : found.tensors()) tensor.values(0, tensor.bytes / sizeof(float));
  });
}

void journal(Bytes input) {
  as_file(input, [](const std::string& path) {
    voxpress::harness::EmbeddingJournal found(path, "key");
    found.add("next", {1.0f, 2.0f});
  });
}

void manifest(Bytes input) {
  try {
    voxpress::core::parse_manifest(text_of(input), "manifest.json");
  } catch (const voxpress::harness::InputError&) {
  }
}

// A key, a signature and the bytes that it is said to be of; every signature is taken for good.
void signature(Bytes input) {
  const std::string_view text = text_of(input);
  const size_t cut = text.find('{');
  if (cut == std::string_view::npos) return;
  try {
    const auto keys = voxpress::core::parse_public_keys(text.substr(0, cut));
    voxpress::core::check_signature("manifest", text.substr(cut), keys, [](auto&&...) { return true; }, "bundle");
  } catch (const voxpress::harness::InputError&) {
  }
}

void voice(Bytes input) {
  try {
    const voxpress::core::Voice found = voxpress::core::read_voice(input.data, input.size);
    std::vector<uint8_t> written(voxpress::core::voice_bytes(found.space.embedding_dim));
    voxpress::core::write_voice(found, written.data());
  } catch (const voxpress::harness::InputError&) {
  }
}

volatile unsigned everything;  // what nobody asks for, so that it is computed

// Reads every byte of a part of the input, so that one that leads out of it is seen.
void touch(std::string_view part) { everything = std::accumulate(part.begin(), part.end(), 0u); }

void archive(Bytes input) {
  const std::string_view whole = text_of(input);
  try {
    size_t bytes = 0;
    for (const auto& [name, content] : voxpress::core::zip_entries("bundle.zip", whole)) {
      touch(content);
      bytes += name.size() + content.size();
    }
    if (bytes > whole.size()) __builtin_trap();  // entries that overlap
  } catch (const voxpress::harness::InputError&) {
  }
}

void tflite_file(Bytes input) {
  try {
    touch(voxpress::harness::tflite_metadata(input.data, input.size, "voxpress_manifest").value_or(""));
  } catch (const std::runtime_error&) {
  }
}

// Sizes mostly small, so that some of them fit together; now and then anything.
int64_t dimension(Bytes* input) {
  const auto choice = input->take<uint8_t>();
  return choice < 240 ? choice % 13 : input->take<int64_t>();
}

std::vector<uint8_t> room(size_t bytes) { return std::vector<uint8_t>(bytes + 64); }

void* aligned(std::vector<uint8_t>* memory) {
  const auto address = reinterpret_cast<uintptr_t>(memory->data());
  return memory->data() + (64 - address % 64) % 64;
}

void fill(Bytes* input, std::vector<float>* values) {
  for (float& value : *values) value = static_cast<float>(input->take<int8_t>());
}

void conv2d_options(Bytes input) {
  voxpress::Conv2dShape shape;
  if (voxpress::tflite::parse_conv2d_options(input.data, input.size, &shape) != nullptr) return;
  voxpress::conv2d_check(shape, {});
}

void conv2d(Bytes input) {
  voxpress::Conv2dShape shape;
  for (int64_t* size :
       {&shape.batch, &shape.in_frames, &shape.in_mel, &shape.in_channels, &shape.out_channels, &shape.kernel_frames,
        &shape.kernel_mel, &shape.stride_frames, &shape.stride_mel, &shape.pad_frames, &shape.pad_mel, &shape.groups}) {
    *size = dimension(&input);
  }
  const auto bits = input.take<uint8_t>();
  shape.bits = bits < 200 ? bits % 9 : bits;
  shape.relu = (input.take<uint8_t>() & 1) != 0;
  const std::vector<uint8_t> codes(input.data, input.data + std::min<size_t>(input.size, 4096));
  std::vector<float> palette(size_t{1} << (shape.bits >= 0 && shape.bits <= 8 ? shape.bits : 0), 0.5f);
  std::vector<float> scale(shape.out_channels > 0 && shape.out_channels < kSmall ? shape.out_channels : 1, 1.0f);
  voxpress::Conv2dWeights weights;
  weights.codes = codes.data();
  // As many as the layer takes where the input has them, else what there is: then the check must refuse.
  int64_t count = 0;
  const int64_t per_group = shape.groups < 1 ? 0 : shape.in_channels / shape.groups;
  const bool fits =
      voxpress::element_count(&count, shape.out_channels, shape.kernel_frames, shape.kernel_mel, per_group) &&
      count < kSmall && shape.bits >= 0;
  const size_t wanted = fits ? (static_cast<size_t>(count) * static_cast<size_t>(shape.bits) + 7) / 8 : codes.size();
  weights.codes_bytes = std::min(codes.size(), wanted);
  weights.palette = palette.data();
  weights.palette_bytes = palette.size() * sizeof(float);
  weights.scale = weights.bias = scale.data();
  weights.scale_bytes = weights.bias_bytes = scale.size() * sizeof(float);
  if (voxpress::conv2d_check(shape, weights) != voxpress::Status::kOk) return;
  const int64_t inputs = shape.batch * shape.in_frames * shape.in_mel * shape.in_channels;
  const int64_t outputs =
      shape.batch * voxpress::conv2d_out_frames(shape) * voxpress::conv2d_out_mel(shape) * shape.out_channels;
  const size_t scratch_bytes = voxpress::conv2d_scratch_bytes(shape);
  if (inputs > kSmall || outputs > kSmall || scratch_bytes > (size_t{1} << 26)) return;
  std::vector<float> x(static_cast<size_t>(inputs)), y(static_cast<size_t>(outputs));
  fill(&input, &x);
  std::vector<uint8_t> scratch = room(scratch_bytes);
  voxpress::Conv2dTensors tensors;
  tensors.input = x.data();
  tensors.output = y.data();
  voxpress::conv2d_run(shape, weights, tensors, aligned(&scratch), scratch_bytes);
}

void conv2d_u8_options(Bytes input) {
  voxpress::Conv2dU8Shape shape;
  if (voxpress::tflite::parse_conv2d_u8_options(input.data, input.size, &shape) != nullptr) return;
  voxpress::conv2d_u8_check(shape, {});
}

void stats_pool_options(Bytes input) { voxpress::tflite::parse_stats_pool_options(input.data, input.size); }

void fbank(Bytes input) {
  voxpress::FbankOptions options;
  constexpr size_t kOptionsBytes = 44;
  if (voxpress::tflite::parse_fbank_options(input.data, std::min(input.size, kOptionsBytes), &options) != nullptr) {
    return;
  }
  input.data += kOptionsBytes;
  input.size -= kOptionsBytes;
  const size_t plan_bytes = voxpress::fbank_plan_bytes(options), scratch_bytes = voxpress::fbank_scratch_bytes(options);
  if (plan_bytes == 0 || options.window_samples > 4096) return;
  std::vector<uint8_t> plan = room(plan_bytes), scratch = room(scratch_bytes);
  if (voxpress::fbank_plan(options, aligned(&plan), plan_bytes) != voxpress::Status::kOk) return;
  std::vector<float> samples(static_cast<size_t>(options.window_samples) + input.size % 1000);
  fill(&input, &samples);
  voxpress::FbankTensors tensors;
  tensors.batch = 1;
  tensors.samples = static_cast<int64_t>(samples.size());
  const int64_t frames = voxpress::fbank_frames(options, tensors.samples);
  if (frames * options.num_mel_bins > kSmall) return;
  std::vector<float> output(static_cast<size_t>(frames * options.num_mel_bins));
  tensors.input = samples.data();
  tensors.output = output.data();
  voxpress::fbank_run(options, aligned(&plan), plan_bytes, tensors, aligned(&scratch), scratch_bytes);
}

void chunks(Bytes input) {
  const int64_t frames = input.take<int64_t>(), chunk = input.take<int64_t>(), index = input.take<int64_t>();
  const int64_t count = voxpress::chunk_count(frames, chunk);
  const int64_t start = voxpress::chunk_start(frames, chunk, index);
  if (count > 1 && (start < 0 || start + chunk > frames)) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  constexpr void (*kReaders[])(Bytes) = {
      json,    safetensors, conv2d_options, conv2d, conv2d_u8_options, fbank,      stats_pool_options, chunks,
      journal, manifest,    signature,      voice,  archive,           tflite_file};
  kReaders[data[0] % (sizeof kReaders / sizeof kReaders[0])]({data + 1, size - 1});
  return 0;
}
