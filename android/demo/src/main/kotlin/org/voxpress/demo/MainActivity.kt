package org.voxpress.demo

import android.Manifest
import android.app.Activity
import android.content.pm.PackageManager
import android.os.Bundle
import android.view.WindowManager
import android.widget.Button
import android.widget.LinearLayout
import android.widget.TextView
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.MainScope
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch
import org.voxpress.VoxPress
import org.voxpress.android.openAsset

/**
 * Records, enrols, verifies, and shows the score beside the threshold. The bundle is assets/bundle.zip, the public
 * key of its signer in assets/key.pem. A demonstration, not a lock: a recording of the voice passes.
 */
class MainActivity : Activity() {
    private val scope: CoroutineScope = MainScope()
    private val store by lazy { VoiceStore(applicationContext) }
    private lateinit var status: TextView
    private lateinit var buttons: List<Button>
    private var voxpress: VoxPress? = null
    private var work: Job? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        status = TextView(this).apply { setPadding(48, 48, 48, 48) }
        buttons = listOf(
            button("Enrol: three times three seconds") { enrol(it) },
            button("Verify: three seconds") { verify(it) },
            button("Forget the voice") { forget(it) },
        )
        setContentView(
            LinearLayout(this).apply {
                orientation = LinearLayout.VERTICAL
                fitsSystemWindows = true
                addView(status)
                buttons.forEach(::addView)
            },
        )
        during { say("Ready, by ${opened().info.model}; ${if (it.voice == null) "no voice" else "a voice"} enrolled.") }
    }

    override fun onDestroy() {
        scope.cancel()
        voxpress?.close()
        super.onDestroy()
    }

    private fun button(text: String, action: suspend (VoxPress) -> Unit) = Button(this).apply {
        this.text = text
        setOnClickListener { if (mayRecord()) during(action) }
    }

    private suspend fun enrol(voxpress: VoxPress) {
        val utterances = (1..UTTERANCES).map { number ->
            say("Speak: $number of $UTTERANCES")
            record(voxpress.info.sampleRateHz, SECONDS)
        }
        store.write(voxpress.enroll(*utterances.toTypedArray()))
        say("Enrolled.")
    }

    private suspend fun verify(voxpress: VoxPress) {
        say("Speak")
        val (score, llr, accepted) = voxpress.verify(record(voxpress.info.sampleRateHz, SECONDS))
        val verdict = if (accepted) "Accepted" else "Refused"
        say("%s: score %.3f, threshold %.3f, log-likelihood ratio %.2f".format(verdict, score, voxpress.info.threshold, llr))
    }

    private suspend fun forget(voxpress: VoxPress) {
        voxpress.voice = null
        store.clear()
        say("Forgotten.")
    }

    // One thing at a time, with the reason shown if it fails.
    private fun during(action: suspend (VoxPress) -> Unit) {
        if (work?.isActive == true) return
        buttons.forEach { it.isEnabled = false }
        work = scope.launch {
            try {
                action(opened())
            } catch (stopped: CancellationException) {
                throw stopped
            } catch (error: Exception) {
                say(error.message ?: error.javaClass.simpleName)
            } finally {
                buttons.forEach { it.isEnabled = true }
            }
        }
    }

    private suspend fun opened(): VoxPress = voxpress ?: run {
        val key = assets.open("key.pem").use { it.readBytes().decodeToString() }
        VoxPress.openAsset(this, "bundle.zip", key).also {
            it.voice = store.read()
            voxpress = it
        }
    }

    private fun mayRecord(): Boolean {
        if (checkSelfPermission(Manifest.permission.RECORD_AUDIO) == PackageManager.PERMISSION_GRANTED) return true
        requestPermissions(arrayOf(Manifest.permission.RECORD_AUDIO), 0)
        return false
    }

    private fun say(text: String) {
        status.text = text
    }

    private companion object {
        const val UTTERANCES = 3
        const val SECONDS = 3
    }
}
