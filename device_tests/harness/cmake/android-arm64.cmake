# Cross-compiles for arm64 Android with the NDK in ANDROID_NDK. Needs CMake >= 3.28, NDK r26 or later:
#
#   cmake -S . -B build/android-arm64/native -G Ninja \
#         -DCMAKE_TOOLCHAIN_FILE=device_tests/harness/cmake/android-arm64.cmake \
#         -Dexecutorch_DIR=<an ExecuTorch build for Android>/lib/cmake/ExecuTorch
#   cmake --build build/android-arm64/native
#
# The .tflite runner loads LiteRT 2's library for Android, which its AAR holds, from
# build/android-arm64/runtime/ai_edge_litert/libLiteRt.so.
#
# Without an ExecuTorch build for Android: -DVOXPRESS_EXECUTORCH=OFF gives the .tflite runner and the delegate, which
# need nothing but the NDK.
if(NOT DEFINED ENV{ANDROID_NDK})
  message(FATAL_ERROR "ANDROID_NDK is not set; expected the folder of an Android NDK")
endif()
set(ANDROID_ABI arm64-v8a)
set(ANDROID_PLATFORM android-26)
set(ANDROID_STL c++_static)
include($ENV{ANDROID_NDK}/build/cmake/android.toolchain.cmake)
