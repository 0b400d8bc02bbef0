// A bundle's zip, unpacked once into a folder of the app, as models are mapped from files.
#pragma once

#include <string>

#include "bundle.h"

namespace voxpress::core {

// The folder below `storage` that holds the manifest, the signature and the models of a bundle's zip: the one that was
// made before, or a new one, whole or not at all. Nothing is written before the signature holds and the sha256 of every
// entry is the manifest's. Folders of other versions of the same bundle are removed then; models that are open
// stay mapped. Throws InputError naming the archive or the file. For one process at a time.
std::string unpack_bundle(const std::string& archive, const std::string& storage, const Trust& trust);

}  // namespace voxpress::core
