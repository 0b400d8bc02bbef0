package org.voxpress

import java.security.GeneralSecurityException
import java.security.KeyFactory
import java.security.Signature
import java.security.spec.X509EncodedKeySpec

/** Checks an Ed25519 signature (RFC 8032). Keys are 32 bytes, signatures 64. */
fun interface SignatureVerifier {
    /** Whether [signature] is one of [message] by the owner of [publicKey]. */
    fun verify(publicKey: ByteArray, message: ByteArray, signature: ByteArray): Boolean
}

/** The implementation of the Java platform: JDK 15 and later. Android's own lacks it on most versions, see TinkVerifier. */
object PlatformVerifier : SignatureVerifier {
    // What stands before a raw key in a SubjectPublicKeyInfo (RFC 8410).
    private val head = byteArrayOf(0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00)

    override fun verify(publicKey: ByteArray, message: ByteArray, signature: ByteArray): Boolean {
        val key = KeyFactory.getInstance("Ed25519").generatePublic(X509EncodedKeySpec(head + publicKey))
        return try {
            Signature.getInstance("Ed25519").run {
                initVerify(key)
                update(message)
                verify(signature)
            }
        } catch (_: GeneralSecurityException) {
            false
        }
    }
}
