// Feeds the fuzz targets where there is no libFuzzer: seeded mutations of the files given, each tried as it is first.
//
//   voxpress_fuzz SEED COUNT FILE...
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Input = std::vector<uint8_t>;

Input read(const char* path) {
  std::ifstream stream(path, std::ios::binary);
  return Input(std::istreambuf_iterator<char>(stream), {});
}

// One to eight changes; the first byte, which names the reader, stays.
void mutate(Input* input, std::mt19937_64* random) {
  const auto below = [&](size_t limit) { return static_cast<size_t>((*random)() % limit); };
  for (size_t change = 1 + below(8); change > 0 && input->size() > 1; --change) {
    const size_t place = 1 + below(input->size() - 1);
    const auto at = input->begin() + static_cast<ptrdiff_t>(place);
    switch (below(6)) {
      case 0:
        (*input)[place] ^= static_cast<uint8_t>(1u << below(8));
        break;
      case 1:
        (*input)[place] = static_cast<uint8_t>(below(256));
        break;
      case 2: {
        constexpr uint8_t kOdd[] = {0, 1, 0x7F, 0x80, 0xFF, '"', '{', '[', '9'};
        (*input)[place] = kOdd[below(sizeof kOdd)];
        break;
      }
      case 3:
        input->resize(place);
        break;
      case 4:
        input->insert(at, 1 + below(16), static_cast<uint8_t>(below(256)));
        break;
      default: {
        const Input copy(at, input->begin() + static_cast<ptrdiff_t>(place + below(input->size() - place)));
        input->insert(at, copy.begin(), copy.end());
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  std::mt19937_64 random(std::strtoull(argv[1], nullptr, 10));
  const auto count = std::strtoll(argv[2], nullptr, 10);
  std::vector<Input> corpus;
  for (int i = 3; i < argc; ++i) corpus.push_back(read(argv[i]));
  for (const Input& input : corpus) LLVMFuzzerTestOneInput(input.data(), input.size());
  for (long long i = 0; i < count; ++i) {
    Input input = corpus[static_cast<size_t>(random() % corpus.size())];
    mutate(&input, &random);
    const Input exact(input);  // without the room that changes leave behind the end, where a read would go unseen
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
  }
  std::printf("%lld inputs\n", count + static_cast<long long>(corpus.size()));
  return 0;
}
