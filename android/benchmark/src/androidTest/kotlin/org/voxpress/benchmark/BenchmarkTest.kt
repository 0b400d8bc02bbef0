package org.voxpress.benchmark

import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import java.io.File
import java.util.zip.ZipFile
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assume.assumeTrue
import org.junit.Test
import org.junit.runner.RunWith

/**
 * What a device farm runs. Firebase Test Lab: the argument `voxpressJob` names a zip that `voxpress device package
 * firebase` wrote; results lie in /sdcard/voxpress/results, which the farm pulls. AWS Device Farm and anyone with adb:
 * the argument `arguments` holds the runner's options, separated by commas; results lie in the app's files.
 */
@RunWith(AndroidJUnit4::class)
class BenchmarkTest {
    private val given = InstrumentationRegistry.getArguments()
    private val files = InstrumentationRegistry.getInstrumentation().targetContext.filesDir

    @Test
    fun runsTheArguments() {
        val arguments = given.getString("arguments")
        assumeTrue("no arguments", arguments != null)
        assertEquals(0, run(files, arguments!!.split(",")))
    }

    @Test
    fun worksThroughTheJob() {
        val archive = given.getString("voxpressJob")
        assumeTrue("no voxpressJob", archive != null)
        val folder = File(files, "job").apply { deleteRecursively() }
        unzip(File(archive!!), folder)
        val device = File(folder, "device")
        val job = JSONObject(File(device, "job.json").readText())
        val protocol = job.getJSONObject("protocol")
        val models = job.getJSONArray("models").objects()
        val failed = mutableListOf<String>()
        fun engine(model: JSONObject, out: String, vararg more: String) {
            val file = model.getString("file")
            // The choice of features and lengths is the driver's, who wrote them beside the models.
            val script = File(device, "run.sh").readLines().first { it.startsWith("engine ") && out in it.split(" ")[1] }
            val words = script.split(" ").drop(3).map { it.trim('\'') }.toMutableList()
            for (option in listOf("--model", "--features")) {
                val at = words.indexOf(option) + 1
                words[at] = File(device, words[at]).path
            }
            val code = run(files, words + listOf("--out", "results/$out") + more)
            if (code != 0) failed += "$file: $code"
        }
        for (model in models) engine(model, "accuracy/${model.getString("file")}")
        for (round in 0 until protocol.getInt("rounds")) {
            val turn = round % models.size
            for (model in models.drop(turn) + models.take(turn)) engine(model, "rounds/$round/${model.getString("file")}")
        }
        File(files, "results").copyRecursively(File("/sdcard/voxpress/results"), overwrite = true)
        assertEquals(emptyList<String>(), failed)
    }

    private fun JSONArray.objects() = (0 until length()).map { getJSONObject(it) }

    private fun unzip(archive: File, folder: File) = ZipFile(archive).use { zip ->
        for (entry in zip.entries()) {
            val target = File(folder, entry.name).canonicalFile
            require(target.startsWith(folder.canonicalFile)) { "${entry.name}: expected a path in the job" }
            if (entry.isDirectory) {
                target.mkdirs()
            } else {
                target.parentFile?.mkdirs()
                zip.getInputStream(entry).use { source -> target.outputStream().use { source.copyTo(it) } }
            }
        }
    }
}
