plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "org.voxpress.demo"
    defaultConfig.applicationId = "org.voxpress.demo"
}

dependencies {
    implementation(project(":voxpress"))
}
