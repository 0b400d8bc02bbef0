import com.android.build.api.dsl.ApplicationExtension
import com.android.build.api.dsl.LibraryExtension
import org.jetbrains.kotlin.gradle.dsl.KotlinAndroidProjectExtension

plugins {
    alias(libs.plugins.android.library) apply false
    alias(libs.plugins.android.application) apply false
    alias(libs.plugins.kotlin.android) apply false
}

// What is the same in every module; each says only what is its own.
val sdk = libs.versions.compile.sdk.get().toInt()
val oldestSdk = libs.versions.min.sdk.get().toInt()

subprojects {
    plugins.withId("org.jetbrains.kotlin.android") {
        extensions.configure<KotlinAndroidProjectExtension> {
            jvmToolchain(17)
        }
    }
    plugins.withId("com.android.library") {
        extensions.configure<LibraryExtension> {
            compileSdk = sdk
            defaultConfig.minSdk = oldestSdk
        }
    }
    plugins.withId("com.android.application") {
        extensions.configure<ApplicationExtension> {
            compileSdk = sdk
            defaultConfig {
                minSdk = oldestSdk
                targetSdk = sdk
                versionCode = 1
                versionName = "0.1.0"
            }
        }
    }
}
