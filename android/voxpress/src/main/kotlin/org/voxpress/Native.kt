package org.voxpress

/** The C++ core behind `voxpress.h`; what each argument is stands in voxpress_jni.cc. */
internal object Native {
    init {
        System.loadLibrary("voxpress_jni")
    }

    @JvmStatic
    external fun open(texts: Array<ByteArray?>, threads: Int, verifier: SignatureVerifier): Long

    @JvmStatic
    external fun close(handle: Long)

    @JvmStatic
    external fun info(handle: Long, texts: Array<String?>, numbers: DoubleArray)

    @JvmStatic
    external fun enroll(handle: Long, utterances: Array<FloatArray>): ByteArray

    @JvmStatic
    external fun verify(handle: Long, voice: ByteArray, samples: FloatArray): DoubleArray

    @JvmStatic
    external fun benchmark(arguments: Array<ByteArray>, text: Array<String?>): Int

    @JvmStatic
    external fun createDelegate(): Long

    @JvmStatic
    external fun destroyDelegate(delegate: Long)
}
