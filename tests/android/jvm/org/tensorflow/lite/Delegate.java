package org.tensorflow.lite;

/** What LiteRT's interface of this name asks of a delegate, so that VoxPressDelegate compiles without Android. */
public interface Delegate extends AutoCloseable {
    long getNativeHandle();

    @Override
    default void close() {}
}
