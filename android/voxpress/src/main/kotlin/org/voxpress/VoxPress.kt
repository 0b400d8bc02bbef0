package org.voxpress

import java.io.File
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext

/** A bundle, samples or a voice that are not what they should be; the message is one line that names them. */
class VoxPressException(message: String) : Exception(message)

/** What to take from a bundle; null is the default that is named. */
data class VoxPressOptions(
    /** Older bundles are refused; null: none are. */
    val minVersion: String? = null,
    /** "pte" or "tflite"; null: the first of them that the bundle holds and this build runs. */
    val format: String? = null,
    /** The artifact, as "4bit"; null: the bundle's primary one. */
    val label: String? = null,
    /** "exact" or "fast"; null: "exact". */
    val mode: String? = null,
    /** Of the calibration, as "far-1%"; null: "eer". */
    val operatingPoint: String? = null,
    /** Of one inference, for all bundles of the process. */
    val threads: Int = 1,
    /**
     * LiteRT's library and our delegate, for .tflite; null: found as the system finds libraries, LiteRT 1's
     * (`libtensorflowlite_jni.so`) before LiteRT 2's (`libLiteRt.so`).
     */
    val runtimeLibrary: String? = null,
    val delegateLibrary: String? = null,
    /** For a zip: a folder of the app that its models are unpacked into, once for each bundle. */
    val storage: File? = null,
    /** Where inference runs. */
    val dispatcher: CoroutineDispatcher = Dispatchers.Default,
)

/** What was opened. */
data class VoxPressInfo(
    val name: String,
    val version: String,
    /** Id of the key whose signature was verified. */
    val signedBy: String,
    /** The file that runs, by its path in the bundle. */
    val model: String,
    val engine: String,
    val runtime: String,
    val operatingPoint: String,
    val threshold: Double,
    val sampleRateHz: Int,
    val embeddingDim: Int,
    /** Samples of the shortest and the longest utterance; the longest 0: no limit but memory. */
    val minSamples: Long,
    val maxSamples: Long,
)

/** Whether an utterance is of a voice: its cosine, the calibrated log-likelihood ratio (natural units), the decision. */
data class Decision(val score: Double, val llr: Double, val accepted: Boolean)

/** An enrolled voice. Its bytes identify a person: store them encrypted, if at all. */
class Voice private constructor(private val bytes: ByteArray) {
    /** A copy of what is to be stored. */
    fun toByteArray(): ByteArray = bytes.copyOf()

    override fun equals(other: Any?): Boolean = other is Voice && bytes.contentEquals(other.bytes)

    override fun hashCode(): Int = bytes.contentHashCode()

    companion object {
        /** A voice from stored bytes; whether they are one shows when it is used. */
        fun of(bytes: ByteArray): Voice = Voice(bytes.copyOf())
    }
}

/**
 * An open bundle: enrols voices and verifies them.
 *
 * Samples are floats in [-1, 1), mono, at [VoxPressInfo.sampleRateHz]. All functions may be called from any thread or
 * coroutine; inferences of one object run one after another. [close] may come at any time: what is running ends, later
 * calls throw IllegalStateException. A recording of the voice is that voice: liveness is out of scope.
 */
class VoxPress private constructor(private val handle: Long, private val dispatcher: CoroutineDispatcher) :
    AutoCloseable {
    /** What [verify] compares with unless it is told otherwise: the voice enrolled last, or one that was stored. */
    @Volatile
    var voice: Voice? = null

    /** What was opened. */
    val info: VoxPressInfo = readInfo(handle)

    /**
     * Enrols a voice from one or more utterances and keeps it as [voice].
     *
     * Throws VoxPressException for utterances that are too short, too long or not numbers.
     */
    suspend fun enroll(vararg utterances: FloatArray): Voice = withContext(dispatcher) {
        Voice.of(Native.enroll(handle, arrayOf(*utterances))).also { voice = it }
    }

    /**
     * Whether an utterance is of a voice, by default of [voice].
     *
     * Throws VoxPressException as [enroll], and for a voice that was enrolled with another model.
     */
    suspend fun verify(samples: FloatArray, voice: Voice? = this.voice): Decision = withContext(dispatcher) {
        val enrolled = voice ?: throw VoxPressException("voice: expected an enrolled voice, found none")
        val (score, llr, accepted) = Native.verify(handle, enrolled.toByteArray(), samples)
        Decision(score, llr, accepted != 0.0)
    }

    /** Unloads the model when the calls that are running have ended. */
    override fun close() = Native.close(handle)

    companion object {
        /**
         * Opens a bundle, a zip or its folder: verifies its signature by one of the PEM [publicKeys], then the sha256 of
         * every file that is there, then maps the model. A zip is unpacked into [VoxPressOptions.storage] if it was not
         * before.
         *
         * Throws VoxPressException, naming the file, for anything that is not what the signed manifest says.
         */
        suspend fun open(
            bundle: File,
            publicKeys: String,
            options: VoxPressOptions = VoxPressOptions(),
            verifier: SignatureVerifier = PlatformVerifier,
        ): VoxPress = withContext(options.dispatcher) {
            val texts = listOf(
                bundle.path, publicKeys, options.minVersion, options.format, options.label, options.mode,
                options.operatingPoint, options.runtimeLibrary, options.delegateLibrary,
                options.storage?.path,
            )
            val bytes = texts.map { it?.encodeToByteArray() }.toTypedArray()
            VoxPress(Native.open(bytes, options.threads, verifier), options.dispatcher)
        }

        private fun readInfo(handle: Long): VoxPressInfo {
            val texts = arrayOfNulls<String>(7)
            val numbers = DoubleArray(6)
            Native.info(handle, texts, numbers)
            val words = texts.requireNoNulls()
            return VoxPressInfo(
                name = words[0],
                version = words[1],
                signedBy = words[2],
                model = words[3],
                engine = words[4],
                runtime = words[5],
                operatingPoint = words[6],
                threshold = numbers[0],
                sampleRateHz = numbers[1].toInt(),
                embeddingDim = numbers[2].toInt(),
                minSamples = numbers[3].toLong(),
                maxSamples = numbers[4].toLong(),
            )
        }
    }
}
