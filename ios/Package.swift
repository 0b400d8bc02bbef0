// swift-tools-version: 5.9
// VoxPress for iOS: enrol and verify a voice. Native/ links to the folders of the repository that hold the C++ code: one
// core for Android and iOS. 64-bit ARM only, the simulator of Apple silicon included.
import PackageDescription

// Kernels round as the other platforms' do; a flag that SwiftPM lets through for packages by path or branch.
let exact: [CXXSetting] = [.unsafeFlags(["-ffp-contract=off", "-fvisibility=hidden"])]

// Everything that any 64-bit ARM processor runs.
let kernels = [
    "exporters/kernels/base/isa.cc",
    "exporters/kernels/base/share.cc",
    "exporters/kernels/base/status.cc",
    "exporters/kernels/base/usage.cc",
    "exporters/kernels/bitpack/unpack.cc",
    "exporters/kernels/conv/conv2d.cc",
    "exporters/kernels/conv/conv2d_f32_neon.cc",
    "exporters/kernels/conv/conv2d_f32_portable.cc",
    "exporters/kernels/conv/geometry.cc",
    "exporters/kernels/conv/panel.cc",
    "exporters/kernels/conv_u8/conv2d_u8.cc",
    "exporters/kernels/conv_u8/conv2d_u8_neon.cc",
    "exporters/kernels/conv_u8/conv2d_u8_portable.cc",
    "exporters/kernels/conv_u8/weights.cc",
    "exporters/kernels/frontend/chunks.cc",
    "exporters/kernels/frontend/fbank.cc",
    "exporters/kernels/frontend/fft.cc",
    "exporters/kernels/pool/stats_pool.cc",
]

// Only where the processor has the dot product, which is asked when it runs.
let dotProductKernels = ["exporters/kernels/conv_u8/conv2d_u8_neondot.cc"]

// Packed weights, our ops for ExecuTorch with their explicit registration, the harness, the core.
let native = [
    "exporters/prepared/hash.cc",
    "exporters/prepared/hash_aes.cc",
    "exporters/prepared/memory_use.cc",
    "exporters/prepared/packed_store.cc",
    "exporters/prepared/run_layer.cc",
    "exporters/prepared/settings.cc",
    "exporters/prepared/thread_pool.cc",
    "exporters/pte/native/adapters.cc",
    "exporters/pte/native/call.cc",
    "exporters/pte/native/conv2d_u8.cc",
    "exporters/pte/native/fbank_adapter.cc",
    "exporters/pte/native/register.cc",
    "device_tests/harness/command_line.cc",
    "device_tests/harness/driver.cc",
    "device_tests/harness/executorch_engine.cc",
    "device_tests/harness/files.cc",
    "device_tests/harness/journal.cc",
    "device_tests/harness/json.cc",
    "device_tests/harness/machine.cc",
    "device_tests/harness/process_memory.cc",
    "device_tests/harness/safetensors.cc",
    "device_tests/harness/sha256.cc",
    "device_tests/core/archive.cc",
    "device_tests/core/bundle.cc",
    "device_tests/core/engines.cc",
    "device_tests/core/frontend.cc",
    "device_tests/core/manifest.cc",
    "device_tests/core/signature.cc",
    "device_tests/core/speaker.cc",
    "device_tests/core/unpack.cc",
    "device_tests/core/voice.cc",
    "device_tests/core/voxpress.cc",
]

let delegate = [
    "exporters/tflite/native/delegate.cc",
    "exporters/tflite/native/fbank_kernel.cc",
    "exporters/tflite/native/kernel.cc",
    "exporters/tflite/native/litert_accelerator.cc",
    "exporters/tflite/native/options.cc",
]

// The packed weights once more: an app may take the delegate without the core.
let delegatePrepared = [
    "exporters/prepared/hash.cc",
    "exporters/prepared/hash_aes.cc",
    "exporters/prepared/memory_use.cc",
    "exporters/prepared/packed_store.cc",
    "exporters/prepared/run_layer.cc",
    "exporters/prepared/settings.cc",
    "exporters/prepared/thread_pool.cc",
]

let package = Package(
    name: "VoxPress",
    platforms: [.iOS(.v17), .macOS(.v13)],
    products: [
        .library(name: "VoxPress", targets: ["VoxPress"]),
        .library(name: "VoxPressTFLite", targets: ["VoxPressTFLite"]),
    ],
    dependencies: [
        // ExecuTorch publishes each release as a branch of its own.
        .package(url: "https://github.com/pytorch/executorch.git", branch: "swiftpm-1.5.1"),
    ],
    targets: [
        .target(
            name: "VoxPressKernels",
            path: "Native",
            sources: kernels,
            publicHeadersPath: "exporters/kernels/base",
            cxxSettings: exact + [.headerSearchPath("exporters/kernels")]
        ),
        .target(
            name: "VoxPressKernelsDotProduct",
            path: "Native",
            sources: dotProductKernels,
            publicHeadersPath: "exporters/kernels/base",
            cxxSettings: exact + [
                .headerSearchPath("exporters/kernels"), .unsafeFlags(["-march=armv8.2-a+dotprod"]),
            ]
        ),
        .target(
            name: "CVoxPress",
            dependencies: [
                "VoxPressKernels",
                "VoxPressKernelsDotProduct",
                .product(name: "executorch", package: "executorch"),
                .product(name: "backend_xnnpack", package: "executorch"),
                .product(name: "kernels_optimized", package: "executorch"),
                .product(name: "kernels_quantized", package: "executorch"),
            ],
            path: "Native",
            sources: native,
            publicHeadersPath: "include",
            cxxSettings: exact + [
                .headerSearchPath("exporters"),
                .headerSearchPath("exporters/kernels"),
                .headerSearchPath("exporters/pte/native"),
                .headerSearchPath("device_tests/core"),
                .headerSearchPath("device_tests/harness"),
                .define("VOXPRESS_CORE_EXECUTORCH"),
                .define("VOXPRESS_EXECUTORCH_VERSION", to: "\"1.5.1\""),
            ]
        ),
        .target(name: "VoxPress", dependencies: ["CVoxPress"], linkerSettings: [.linkedFramework("CryptoKit")]),
        // The delegate for TensorFlowLiteSwift, which an app brings itself.
        .target(
            name: "CVoxPressTFLite",
            dependencies: ["VoxPressKernels", "VoxPressKernelsDotProduct"],
            path: "Native/tflite",
            sources: delegate + delegatePrepared,
            publicHeadersPath: "include",
            cxxSettings: exact + [
                .headerSearchPath("exporters"),
                .headerSearchPath("exporters/kernels"),
                .headerSearchPath("exporters/tflite/native"),
            ]
        ),
        .target(name: "VoxPressTFLite", dependencies: ["CVoxPressTFLite"]),
    ],
    cxxLanguageStandard: .cxx17
)
