# Compiles the harness as a static library for arm64 iOS, on macOS with Xcode:
#
#   cmake -S . -B build/ios-arm64 -G Xcode -DCMAKE_TOOLCHAIN_FILE=device_tests/harness/cmake/ios-arm64.cmake \
#         -DVOXPRESS_EXECUTORCH=OFF
#   cmake --build build/ios-arm64 --config Release --target voxpress_harness voxpress_tflite_engine
#
# An app holds no programs: its benchmark calls voxpress::harness::run_engine with an engine's table.
set(CMAKE_SYSTEM_NAME iOS)
set(CMAKE_SYSTEM_PROCESSOR arm64)
set(CMAKE_OSX_ARCHITECTURES arm64)
set(CMAKE_OSX_DEPLOYMENT_TARGET 15.0)
