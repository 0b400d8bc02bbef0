// How much memory our ops hold in this process, counted where it is taken: what is resident besides a model's file and
// its activations.
#pragma once

#include <cstddef>

namespace voxpress {

// `weight_bytes`: packed weights that are alive now. `scratch_bytes`: the most that a layer was given so far, all its
// threads together; in mode `fast` and low memory the layer's packed weights lie in it.
void memory_use(size_t* weight_bytes, size_t* scratch_bytes);

// For those who take it.
void count_weights(size_t bytes);
void discount_weights(size_t bytes);
void count_scratch(size_t bytes);

}  // namespace voxpress
