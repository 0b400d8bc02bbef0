// How much memory our ops hold in this process, counted where it is taken: what is resident besides a model's file and
// its activations.
#pragma once

#include <cstddef>

namespace voxpress {

struct MemoryUse {
  size_t weight_bytes = 0;   // packed weights that are alive now
  size_t scratch_bytes = 0;  // the most that a layer was given so far, all its threads together; in mode `fast` and low
                             // memory the layer's packed weights lie in it
};

MemoryUse memory_use();

// For those who take it.
void count_weights(size_t bytes);
void discount_weights(size_t bytes);
void count_scratch(size_t bytes);

}  // namespace voxpress
