import CVoxPress
import CryptoKit
import Foundation
import os

/// Why a call failed; `message` is one line that names the file, what was expected and what was found.
public enum VoxPressError: Error, Equatable, Sendable {
    /// Bundle, signature, samples or voice are not what they should be.
    case badInput(String)
    /// The object was closed.
    case closed(String)
    /// The machine: no memory, a model that broke off.
    case failed(String)

    /// The line in words.
    public var message: String {
        switch self {
        case .badInput(let message), .closed(let message), .failed(let message): return message
        }
    }
}

/// What to take from a bundle; nil is the default that is named.
public struct VoxPressOptions: Sendable {
    /// Older bundles are refused; nil: none are.
    public var minVersion: String?
    /// The artifact, as "4bit"; nil: the bundle's primary one.
    public var label: String?
    /// "exact" or "fast"; nil: "exact".
    public var mode: String?
    /// Of the calibration, as "far-1%"; nil: "eer".
    public var operatingPoint: String?
    /// Of one inference, for all bundles of the process.
    public var threads: Int32 = 1
    /// For a zip: a folder of the app that its models are unpacked into, once for each bundle.
    public var storage: URL?

    public init() {}
}

/// What was opened.
public struct VoxPressInfo: Sendable, Equatable {
    public let name: String
    public let version: String
    /// Id of the key whose signature was verified.
    public let signedBy: String
    /// The file that runs, by its path in the bundle.
    public let model: String
    public let engine: String
    public let runtime: String
    public let operatingPoint: String
    public let threshold: Double
    public let sampleRateHz: Int
    public let embeddingDim: Int
    /// Samples of the shortest and the longest utterance; the longest 0: no limit but memory.
    public let minSamples: Int
    public let maxSamples: Int
}

/// Whether an utterance is of a voice: its cosine, the calibrated log-likelihood ratio (natural units), the decision.
public struct Decision: Sendable, Equatable {
    public let score: Double
    public let llr: Double
    public let accepted: Bool
}

/// An enrolled voice. Its bytes identify a person: store them encrypted, if at all.
public struct Voice: Sendable, Equatable {
    public let data: Data

    /// A voice from stored bytes; whether they are one shows when it is used.
    public init(data: Data) {
        self.data = data
    }
}

/// An open bundle: enrols voices and verifies them.
///
/// Samples are floats in [-1, 1), mono, at `info.sampleRateHz`. All functions may be called from any task; inferences of
/// one object run one after another. `close` may come at any time: what is running ends, later calls throw
/// `VoxPressError.closed`. A recording of the voice is that voice: liveness is out of scope.
public final class VoxPress: Sendable {
    /// What was opened.
    public let info: VoxPressInfo

    private let handle: VoxpressHandle
    private let voiceBytes: Int
    private let enrolled = OSAllocatedUnfairLock<Voice?>(initialState: nil)
    private static let queue = DispatchQueue(label: "org.voxpress", qos: .userInitiated, attributes: .concurrent)

    /// What `verify` compares with unless it is told otherwise: the voice enrolled last, or one that was stored.
    public var voice: Voice? {
        get { enrolled.withLock { $0 } }
        set { enrolled.withLock { $0 = newValue } }
    }

    private init(handle: VoxpressHandle) throws {
        var raw = VoxpressInfo()
        try checked { voxpress_info(handle, &raw, $0) }
        self.handle = handle
        voiceBytes = raw.voice_bytes
        info = VoxPressInfo(
            name: text(raw.name), version: text(raw.version), signedBy: text(raw.signed_by), model: text(raw.model),
            engine: text(raw.engine), runtime: text(raw.runtime), operatingPoint: text(raw.operating_point),
            threshold: raw.threshold, sampleRateHz: Int(raw.sample_rate_hz), embeddingDim: Int(raw.embedding_dim),
            minSamples: Int(raw.min_samples), maxSamples: Int(raw.max_samples))
    }

    deinit {
        voxpress_close(handle)
    }

    /// Opens a bundle, a zip or its folder: verifies its signature by one of the PEM `publicKeys` (with CryptoKit), then
    /// the sha256 of every file that is there, then maps the model. A zip is unpacked into `options.storage` if it was
    /// not before.
    ///
    /// Throws `VoxPressError.badInput`, naming the file, for anything that is not what the signed manifest says.
    public static func open(
        bundle: URL, publicKeys: String, options: VoxPressOptions = VoxPressOptions()
    ) async throws -> VoxPress {
        try await onQueue {
            try VoxPress(handle: openHandle(bundle.path, publicKeys, options))
        }
    }

    /// Enrols a voice from one or more utterances and keeps it as `voice`.
    ///
    /// Throws `VoxPressError.badInput` for utterances that are too short, too long or not numbers.
    @discardableResult
    public func enroll(_ utterances: [Float]...) async throws -> Voice {
        try await enroll(utterances: utterances)
    }

    /// The same for a list.
    @discardableResult
    public func enroll(utterances: [[Float]]) async throws -> Voice {
        let voice = try await Self.onQueue { [handle, voiceBytes] in
            // One array for all utterances, so that pointers into it hold during the call.
            let all = utterances.flatMap { $0 }
            var bytes = [UInt8](repeating: 0, count: voiceBytes)
            try all.withUnsafeBufferPointer { samples in
                var nothing: Float = 0
                try withUnsafePointer(to: &nothing) { empty in
                    var first = samples.baseAddress ?? empty
                    let parts = utterances.map { utterance in
                        defer { first += utterance.count }
                        return VoxpressSamples(data: first, count: utterance.count)
                    }
                    try parts.withUnsafeBufferPointer { list in
                        // Never null, also of an empty list, which the core refuses in words.
                        var none = VoxpressSamples(data: empty, count: 0)
                        try withUnsafePointer(to: &none) { placeholder in
                            try checked {
                                voxpress_enroll(handle, list.baseAddress ?? placeholder, list.count, &bytes, $0)
                            }
                        }
                    }
                }
            }
            return Voice(data: Data(bytes))
        }
        self.voice = voice
        return voice
    }

    /// Whether an utterance is of a voice, by default of `self.voice`.
    ///
    /// Throws `VoxPressError.badInput` as `enroll`, and for a voice that was enrolled with another model.
    public func verify(_ samples: [Float], voice: Voice? = nil) async throws -> Decision {
        guard let known = voice ?? self.voice else {
            throw VoxPressError.badInput("voice: expected an enrolled voice, found none")
        }
        return try await Self.onQueue { [handle] in
            var raw = VoxpressDecision()
            let bytes = [UInt8](known.data)
            // A placeholder behind the samples keeps the pointer of an empty utterance from being null.
            try (samples + [0]).withUnsafeBufferPointer { all in
                let utterance = VoxpressSamples(data: all.baseAddress!, count: samples.count)
                try (bytes + [0]).withUnsafeBufferPointer { stored in
                    try checked {
                        voxpress_verify(handle, stored.baseAddress!, bytes.count, utterance, &raw, $0)
                    }
                }
            }
            return Decision(score: raw.score, llr: raw.llr, accepted: raw.accepted != 0)
        }
    }

    /// Unloads the model when the calls that are running have ended.
    public func close() {
        voxpress_close(handle)
    }

    // Inference takes its time: not on the threads that all tasks share.
    private static func onQueue<Result: Sendable>(_ work: @escaping @Sendable () throws -> Result) async throws -> Result {
        try await withCheckedThrowingContinuation { continuation in
            queue.async {
                continuation.resume(with: Swift.Result { try work() })
            }
        }
    }
}

/// The harness's runner inside an app: the same code and the same options as the program `voxpress_pte_runner`.
public enum Benchmark {
    /// Runs a model file over a file of features, e.g. `--model X.pte --features F --out DIR`. Returns the exit code and
    /// the reason on one line, "" if there is none.
    public static func run(_ arguments: [String]) -> (exitCode: Int32, text: String) {
        var error = CVoxPress.VoxpressError()
        var words = arguments.map { UnsafePointer(strdup($0)!) }
        defer { words.forEach { free(UnsafeMutablePointer(mutating: $0)) } }
        let code = voxpress_benchmark(&words, words.count, &error)
        return (code, text(error.text))
    }
}

private func openHandle(_ bundle: String, _ publicKeys: String, _ wanted: VoxPressOptions) throws -> VoxpressHandle {
    let texts = [
        bundle, publicKeys, wanted.minVersion, wanted.label, wanted.mode, wanted.operatingPoint, wanted.storage?.path,
    ]
    let copies = texts.map { $0.flatMap { strdup($0) } }
    defer { copies.forEach { free($0) } }
    var options = VoxpressOptions(
        bundle: UnsafePointer(copies[0]!), public_keys: UnsafePointer(copies[1]!), verify_signature: verifySignature,
        verify_context: nil, min_version: copies[2].map { UnsafePointer($0) }, format: nil,
        label: copies[3].map { UnsafePointer($0) }, mode: copies[4].map { UnsafePointer($0) },
        operating_point: copies[5].map { UnsafePointer($0) }, threads: wanted.threads, runtime_library: nil,
        delegate_library: nil, storage: copies[6].map { UnsafePointer($0) })
    var error = CVoxPress.VoxpressError()
    let handle = voxpress_open(&options, &error)
    if handle == 0 { throw VoxPressError.badInput(text(error.text)) }
    return handle
}

/// Ed25519 by CryptoKit.
private let verifySignature: VoxpressVerifySignature = { _, publicKey, message, messageBytes, signature in
    let key = Data(bytes: publicKey, count: Int(VOXPRESS_ED25519_KEY_BYTES))
    let proof = Data(bytes: signature, count: Int(VOXPRESS_ED25519_SIGNATURE_BYTES))
    guard let known = try? Curve25519.Signing.PublicKey(rawRepresentation: key) else { return 0 }
    return known.isValidSignature(proof, for: Data(bytes: message, count: messageBytes)) ? 1 : 0
}

private func checked(_ call: (UnsafeMutablePointer<CVoxPress.VoxpressError>) -> VoxpressStatus) throws {
    var error = CVoxPress.VoxpressError()
    switch call(&error) {
    case VOXPRESS_OK: return
    case VOXPRESS_BAD_INPUT: throw VoxPressError.badInput(text(error.text))
    case VOXPRESS_CLOSED: throw VoxPressError.closed(text(error.text))
    default: throw VoxPressError.failed(text(error.text))
    }
}

/// The text in an array of C characters, which Swift sees as a tuple.
private func text<Characters>(_ characters: Characters) -> String {
    withUnsafeBytes(of: characters) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}
