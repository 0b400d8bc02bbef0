plugins {
    alias(libs.plugins.android.library)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "org.voxpress"
    ndkVersion = libs.versions.ndk.get()

    defaultConfig {
        consumerProguardFiles("consumer-rules.pro")
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64")
        }
        externalNativeBuild {
            cmake {
                arguments += listOf("-DANDROID_STL=c++_static", "-DANDROID_SUPPORT_FLEXIBLE_PAGE_SIZES=ON")
                targets += listOf("voxpress_jni", "voxpress_tflite_delegate")
            }
        }
    }

    externalNativeBuild {
        cmake {
            path = file("src/main/cpp/CMakeLists.txt")
            version = libs.versions.cmake.get()
        }
    }

    // Libraries stay as they are in the APK and are mapped from it; so are models below assets/.
    packaging {
        jniLibs {
            useLegacyPackaging = false
        }
    }
}

dependencies {
    api(libs.coroutines.android)
    implementation(libs.tink.android)
    // Only for apps that run .tflite files: they bring it themselves.
    compileOnly(libs.litert)
}
