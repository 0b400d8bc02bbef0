package org.voxpress.benchmark

import java.io.File
import org.voxpress.Benchmark

/** Name of the file that says, last of all, with which code a run ended. */
const val EXIT_CODE = "exit_code"

/**
 * Runs the harness with its own options, of which `--out` names a folder below [files]: results lie there, then the
 * reason of a failure in `error.txt`, last the exit code. Returns that code.
 */
fun run(files: File, arguments: List<String>): Int {
    val at = arguments.indexOf("--out") + 1
    if (at == 0 || at == arguments.size) return finish(files, Benchmark.Result(2, "--out: expected a folder, found none"))
    val out = File(files, arguments[at]).canonicalFile
    if (!out.startsWith(files.canonicalFile)) {
        return finish(files, Benchmark.Result(2, "--out: expected a folder of the app, found ${arguments[at]}"))
    }
    out.mkdirs()
    File(out, EXIT_CODE).delete()
    val words = arguments.toMutableList().also { it[at] = out.path }
    return finish(out, Benchmark.run(words))
}

private fun finish(out: File, result: Benchmark.Result): Int {
    if (result.text.isNotEmpty()) File(out, "error.txt").writeText(result.text + "\n")
    // Renamed into place: whoever polls for it finds it whole.
    val beside = File(out, "$EXIT_CODE.part").apply { writeText("${result.exitCode}\n") }
    beside.renameTo(File(out, EXIT_CODE))
    return result.exitCode
}
