package org.voxpress.benchmark

import android.app.Activity
import android.content.Intent
import android.os.Bundle
import android.view.WindowManager
import android.widget.TextView
import kotlin.concurrent.thread

/**
 * Runs the harness as an intent says, and ends:
 *
 *     am start -W -n org.voxpress.benchmark/.BenchmarkActivity --esa arguments --model,M.pte,--features,F,--out,DIR
 */
class BenchmarkActivity : Activity() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        start(intent)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        start(intent)
    }

    private fun start(intent: Intent) {
        val status = TextView(this).also { setContentView(it) }
        val arguments = intent.getStringArrayExtra("arguments")
        if (arguments == null) {
            status.text = "Started by voxpress device run --device adb --app org.voxpress.benchmark/.BenchmarkActivity"
            return
        }
        status.text = arguments.joinToString(" ")
        thread(name = "benchmark") {
            val code = run(filesDir, arguments.toList())
            runOnUiThread {
                status.text = "ended with $code"
                finish()
            }
        }
    }
}
