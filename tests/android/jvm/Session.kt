// What tests/android/test_jvm.py runs on the desktop JVM: the Kotlin API over a bundle, facts as lines of JSON.
//
//   Session trials BUNDLE KEYS SAMPLES...   the first three utterances enrol, each of the others is a trial
//   Session errors BUNDLE KEYS SAMPLES
//   Session threads BUNDLE KEYS SAMPLES...
//   Session close BUNDLE KEYS SAMPLES
//   Session delegate BUNDLE KEYS
//   Session example APP KEYS SAMPLES...     the page's example over an app's assets; the last utterance is the later one
import android.content.Context
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.concurrent.CyclicBarrier
import kotlin.concurrent.thread
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.runBlocking
import org.voxpress.PlatformVerifier
import org.voxpress.SignatureVerifier
import org.voxpress.Voice
import org.voxpress.VoxPress
import org.voxpress.VoxPressOptions
import org.voxpress.android.VoxPressDelegate

val wanted = VoxPressOptions(format = System.getProperty("voxpress.format"))

fun samples(path: String): FloatArray {
    val bytes = ByteBuffer.wrap(File(path).readBytes()).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
    return FloatArray(bytes.remaining()).also { bytes.get(it) }
}

fun quoted(text: String?): String = "\"" + text.orEmpty().replace("\\", "\\\\").replace("\"", "\\\"") + "\""

// What a call threw, as a line.
inline fun thrown(name: String, call: () -> Any?) {
    val found = try {
        "no exception: " + call()
    } catch (error: Throwable) {
        error.javaClass.name + ": " + error.message
    }
    println("{${quoted(name)}: ${quoted(found)}}")
}

suspend fun trials(bundle: File, keys: String, utterances: List<FloatArray>) {
    VoxPress.open(bundle, keys, wanted).use { voxpress ->
        val info = voxpress.info
        println("{\"model\": ${quoted(info.model)}, \"engine\": ${quoted(info.engine)}, " +
            "\"runtime\": ${quoted(info.runtime)}, \"threshold\": ${info.threshold}}")
        voxpress.enroll(*utterances.take(3).toTypedArray())
        for (utterance in utterances.drop(3)) {
            val (score, llr, accepted) = voxpress.verify(utterance)
            println("{\"score\": $score, \"llr\": $llr, \"accepted\": $accepted}")
        }
    }
}

suspend fun errors(bundle: File, keys: String, utterance: FloatArray) {
    thrown("no bundle") { VoxPress.open(File(bundle, "nothing"), keys) }
    thrown("no key") { VoxPress.open(bundle, "none") }
    thrown("refused") { VoxPress.open(bundle, keys, verifier = SignatureVerifier { _, _, _ -> false }) }
    thrown("verifier throws") { VoxPress.open(bundle, keys, verifier = SignatureVerifier { _, _, _ -> error("broken") }) }
    thrown("no storage") { VoxPress.open(File(bundle, "manifest.json"), keys) }
    thrown("other point") { VoxPress.open(bundle, keys, VoxPressOptions(operatingPoint = "far-\uD83D\uDE00")) }
    val voxpress = VoxPress.open(bundle, keys)
    thrown("no voice") { voxpress.verify(utterance) }
    thrown("no utterance") { voxpress.enroll() }
    thrown("too short") { voxpress.enroll(utterance, FloatArray(100)) }
    thrown("not a number") { voxpress.enroll(FloatArray(8000) { Float.NaN }) }
    thrown("no such voice") { voxpress.verify(utterance, Voice.of(ByteArray(3))) }
    val voice = voxpress.enroll(utterance)
    thrown("stored") { voxpress.verify(utterance, Voice.of(voice.toByteArray())).accepted && voice == Voice.of(voice.toByteArray()) }
    voxpress.close()
    voxpress.close()
    thrown("closed") { voxpress.verify(utterance) }
    thrown("closed too") { voxpress.enroll(utterance) }
    val key = ByteArray(32)
    thrown("signature of no length") { PlatformVerifier.verify(key, ByteArray(1), ByteArray(0)) }
}

// The same decisions from many coroutines, on one object and on two.
suspend fun threads(bundle: File, keys: String, utterances: List<FloatArray>) {
    val voxpress = VoxPress.open(bundle, keys, wanted)
    val second = VoxPress.open(bundle, keys, wanted)
    val voice = voxpress.enroll(utterances.first())
    val expected = utterances.map { voxpress.verify(it) }
    val same = runBlocking(Dispatchers.Default) {
        (1..4).map { worker ->
            async { List(5) { utterances.map { (if (worker % 2 == 0) voxpress else second).verify(it, voice) } } }
        }.awaitAll().flatten().all { it == expected }
    }
    println("{\"same\": $same}")
    voxpress.close()
    second.close()
}

// Closing while threads verify: each of them ends with a decision or with IllegalStateException.
suspend fun close(bundle: File, keys: String, utterance: FloatArray) {
    repeat(10) {
        val voxpress = VoxPress.open(bundle, keys, wanted)
        val voice = voxpress.enroll(utterance)
        val begun = CyclicBarrier(3)
        val ends = arrayOfNulls<String>(2)
        val workers = ends.indices.map { index ->
            thread {
                begun.await()
                ends[index] = try {
                    runBlocking { while (true) check(voxpress.verify(utterance, voice).accepted) { "refused" } }
                    "never"
                } catch (error: Throwable) {
                    error.javaClass.name + ": " + error.message
                }
            }
        }
        begun.await()
        voxpress.close()
        workers.forEach { it.join() }
        ends.forEach { println("{\"end\": ${quoted(it)}}") }
    }
}

fun delegate() {
    val delegate = VoxPressDelegate()
    println("{\"open\": ${delegate.nativeHandle != 0L}}")
    delegate.close()
    delegate.close()
    thrown("closed") { delegate.nativeHandle }
}

fun main(args: Array<String>) = runBlocking {
    val bundle = File(args[1])
    val keys = File(args[2]).readText()
    val utterances = args.drop(3).map(::samples)
    when (args[0]) {
        "trials" -> trials(bundle, keys, utterances)
        "errors" -> errors(bundle, keys, utterances.first())
        "threads" -> threads(bundle, keys, utterances)
        "close" -> close(bundle, keys, utterances.first())
        "delegate" -> delegate()
        "example" -> println("{\"accepted\": ${isTheSame(Context(bundle), utterances.dropLast(1), utterances.last())}}")
    }
}
