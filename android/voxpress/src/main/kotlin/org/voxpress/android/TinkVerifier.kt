package org.voxpress.android

import com.google.crypto.tink.subtle.Ed25519Verify
import java.security.GeneralSecurityException
import org.voxpress.SignatureVerifier

/** Ed25519 by Tink, which has it on every version of Android. */
object TinkVerifier : SignatureVerifier {
    override fun verify(publicKey: ByteArray, message: ByteArray, signature: ByteArray): Boolean = try {
        Ed25519Verify(publicKey).verify(signature, message)
        true
    } catch (_: GeneralSecurityException) {
        false
    }
}
