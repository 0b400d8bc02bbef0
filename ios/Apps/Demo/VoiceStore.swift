import Foundation
import Security
import VoxPress

struct KeychainError: LocalizedError {
    let status: OSStatus
    var errorDescription: String? { "keychain: expected success, found status \(status)" }
}

/// One enrolled voice in the Keychain: encrypted, on this device only, readable while it is unlocked.
struct VoiceStore {
    private let item: [CFString: Any] = [
        kSecClass: kSecClassGenericPassword,
        kSecAttrService: "org.voxpress.demo",
        kSecAttrAccount: "voice",
    ]

    /// Keeps a voice in place of the one before.
    func write(_ voice: Voice) throws {
        try clear()
        var added = item
        added[kSecValueData] = voice.data
        added[kSecAttrAccessible] = kSecAttrAccessibleWhenUnlockedThisDeviceOnly
        let status = SecItemAdd(added as CFDictionary, nil)
        guard status == errSecSuccess else { throw KeychainError(status: status) }
    }

    /// The voice that is kept; nil if there is none.
    func read() throws -> Voice? {
        var query = item
        query[kSecReturnData] = true
        var found: CFTypeRef?
        let status = SecItemCopyMatching(query as CFDictionary, &found)
        if status == errSecItemNotFound { return nil }
        guard status == errSecSuccess, let data = found as? Data else { throw KeychainError(status: status) }
        return Voice(data: data)
    }

    /// Forgets the voice.
    func clear() throws {
        let status = SecItemDelete(item as CFDictionary)
        guard status == errSecSuccess || status == errSecItemNotFound else { throw KeychainError(status: status) }
    }
}
