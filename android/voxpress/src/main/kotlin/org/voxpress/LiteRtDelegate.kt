package org.voxpress

import java.util.concurrent.atomic.AtomicLong

/** The native delegate with VoxPress's ops, for runtimes that take the address of a `TfLiteDelegate`. */
internal class LiteRtDelegate : AutoCloseable {
    private val pointer = AtomicLong(Native.createDelegate())

    /** Address of the delegate; throws IllegalStateException when it was closed. */
    val address: Long
        get() = pointer.get().also { check(it != 0L) { "delegate: expected an open one, found one that was closed" } }

    override fun close() {
        val last = pointer.getAndSet(0L)
        if (last != 0L) Native.destroyDelegate(last)
    }
}
