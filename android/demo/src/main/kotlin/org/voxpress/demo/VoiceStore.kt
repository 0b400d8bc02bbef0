package org.voxpress.demo

import android.content.Context
import android.security.keystore.KeyGenParameterSpec
import android.security.keystore.KeyProperties
import java.io.File
import java.security.GeneralSecurityException
import java.security.KeyStore
import javax.crypto.Cipher
import javax.crypto.KeyGenerator
import javax.crypto.SecretKey
import javax.crypto.spec.GCMParameterSpec
import org.voxpress.Voice

/** One enrolled voice, encrypted with a key that never leaves the device's keystore, in a file that backups leave out. */
class VoiceStore(context: Context) {
    private val file = File(context.noBackupFilesDir, "voice")

    /** Keeps a voice in place of the one before. */
    fun write(voice: Voice) {
        val cipher = Cipher.getInstance(TRANSFORMATION).apply { init(Cipher.ENCRYPT_MODE, key()) }
        val beside = File(file.path + ".part")
        beside.writeBytes(cipher.iv + cipher.doFinal(voice.toByteArray()))
        check(beside.renameTo(file)) { "$file: expected a place to write to" }
    }

    /** The voice that is kept; null if there is none, or none that this device's key opens. */
    fun read(): Voice? {
        if (!file.isFile) return null
        val bytes = file.readBytes()
        if (bytes.size <= IV_BYTES) return null
        val cipher = Cipher.getInstance(TRANSFORMATION)
        return try {
            cipher.init(Cipher.DECRYPT_MODE, key(), GCMParameterSpec(TAG_BITS, bytes, 0, IV_BYTES))
            Voice.of(cipher.doFinal(bytes, IV_BYTES, bytes.size - IV_BYTES))
        } catch (_: GeneralSecurityException) {
            null
        }
    }

    /** Forgets the voice and the key. */
    fun clear() {
        file.delete()
        keystore().deleteEntry(ALIAS)
    }

    private fun key(): SecretKey {
        (keystore().getKey(ALIAS, null) as? SecretKey)?.let { return it }
        val generator = KeyGenerator.getInstance(KeyProperties.KEY_ALGORITHM_AES, KEYSTORE)
        val purposes = KeyProperties.PURPOSE_ENCRYPT or KeyProperties.PURPOSE_DECRYPT
        generator.init(
            KeyGenParameterSpec.Builder(ALIAS, purposes)
                .setBlockModes(KeyProperties.BLOCK_MODE_GCM)
                .setEncryptionPaddings(KeyProperties.ENCRYPTION_PADDING_NONE)
                .setKeySize(256)
                .build(),
        )
        return generator.generateKey()
    }

    private fun keystore() = KeyStore.getInstance(KEYSTORE).apply { load(null) }

    private companion object {
        const val KEYSTORE = "AndroidKeyStore"
        const val ALIAS = "voxpress.voice"
        const val TRANSFORMATION = "AES/GCM/NoPadding"
        const val IV_BYTES = 12
        const val TAG_BITS = 128
    }
}
