// Long recordings in bounded memory: equally long chunks, evenly spread, and the mean of their directions.
//
//   n        = ceil(frames / chunk_frames)
//   chunk i  = frames [s, s + chunk_frames), s = floor(i (frames - chunk_frames) / (n - 1)), i = 0 .. n - 1
//   result   = (1 / n) sum_i e_i / |e_i|; for n = 1 the embedding itself
//
// Chunks overlap rather than end in a short one. Features are mean-normalised over each chunk, so that a model that
// takes samples and one that takes features see the same. Every app and runner calls these functions, whatever its
// language.
#pragma once

#include <cstdint>

#include "base/status.h"

namespace voxpress {

// Chunks of an utterance of so many frames; 1 if chunk_frames is 0 (no chunks wanted) or not less than frames. 0 if
// frames < 1 or chunk_frames < 0, or if either is beyond 2^31.
int64_t chunk_count(int64_t frames, int64_t chunk_frames);

// First frame of chunk `index` of chunk_count(frames, chunk_frames).
int64_t chunk_start(int64_t frames, int64_t chunk_frames, int64_t index);

// Subtracts each mel bin's mean over the frames: values [frames, mel], in place, the sum in double.
Status chunk_normalise(float* values, int64_t frames, int64_t mel);

// sum [dim] += embedding / |embedding|. An embedding of length 0 adds nothing.
Status chunk_add(const float* embedding, int64_t dim, double* sum);

// embedding = sum / count.
Status chunk_mean(const double* sum, int64_t dim, int64_t count, float* embedding);

}  // namespace voxpress
