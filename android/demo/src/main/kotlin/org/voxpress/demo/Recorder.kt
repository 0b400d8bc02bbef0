package org.voxpress.demo

import android.annotation.SuppressLint
import android.media.AudioFormat
import android.media.AudioRecord
import android.media.MediaRecorder
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.withContext

/** Records into memory only. The permission to record must have been given. */
@SuppressLint("MissingPermission")
suspend fun record(sampleRateHz: Int, seconds: Int): FloatArray = withContext(Dispatchers.IO) {
    val least = AudioRecord.getMinBufferSize(
        sampleRateHz, AudioFormat.CHANNEL_IN_MONO, AudioFormat.ENCODING_PCM_FLOAT,
    )
    check(least > 0) { "microphone: expected $sampleRateHz Hz float samples, found error $least" }
    val microphone = AudioRecord(
        MediaRecorder.AudioSource.VOICE_RECOGNITION, sampleRateHz, AudioFormat.CHANNEL_IN_MONO,
        AudioFormat.ENCODING_PCM_FLOAT, 4 * least,
    )
    try {
        check(microphone.state == AudioRecord.STATE_INITIALIZED) { "microphone: expected one that is free, found none" }
        microphone.startRecording()
        val samples = FloatArray(sampleRateHz * seconds)
        var taken = 0
        while (taken < samples.size) {
            ensureActive()
            val count = microphone.read(samples, taken, samples.size - taken, AudioRecord.READ_BLOCKING)
            check(count > 0) { "microphone: expected samples, found error $count" }
            taken += count
        }
        samples
    } finally {
        microphone.release()
    }
}
