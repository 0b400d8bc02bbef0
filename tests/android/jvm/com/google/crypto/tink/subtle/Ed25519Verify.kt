package com.google.crypto.tink.subtle

import java.security.GeneralSecurityException
import org.voxpress.PlatformVerifier

/** Tink's class of this name by its interface; the curve is the Java platform's. */
class Ed25519Verify(private val publicKey: ByteArray) {
    fun verify(signature: ByteArray, data: ByteArray) {
        if (!PlatformVerifier.verify(publicKey, data, signature)) throw GeneralSecurityException("Signature check failed.")
    }
}
