package org.voxpress.android

import org.tensorflow.lite.Delegate
import org.voxpress.LiteRtDelegate

/**
 * Our ops for LiteRT's own Interpreter: `Interpreter.Options().addDelegate(VoxPressDelegate())`.
 *
 * Close it after the interpreters that use it. LiteRT in Google Play services takes no delegates of apps, and LiteRT 2
 * none from Java: there, open the bundle with `format = "tflite"` instead.
 */
class VoxPressDelegate : Delegate {
    private val delegate = LiteRtDelegate()

    override fun getNativeHandle(): Long = delegate.address

    override fun close() = delegate.close()
}
