package org.voxpress

/** The harness's runner inside an app: the same code and the same options as the program `voxpress_pte_runner`. */
object Benchmark {
    /** How a run ended: 0; 2 for what the user can mend; 1 for anything else, with the reason on one line. */
    data class Result(val exitCode: Int, val text: String)

    /**
     * Runs a model file over a file of features, e.g. `--model X.pte --features F --out DIR`, and writes `engine.json`
     * and `embeddings.safetensors`. The engine is the one for the model's suffix.
     */
    fun run(arguments: List<String>): Result {
        val text = arrayOfNulls<String>(1)
        val code = Native.benchmark(arguments.map { it.encodeToByteArray() }.toTypedArray(), text)
        return Result(code, text[0].orEmpty())
    }
}
