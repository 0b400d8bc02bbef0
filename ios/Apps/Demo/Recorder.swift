import AVFoundation

struct RecordingError: LocalizedError {
    let errorDescription: String?
}

/// Records into memory only, mono at the given rate.
func record(sampleRateHz: Int, seconds: Int) async throws -> [Float] {
    guard await AVAudioApplication.requestRecordPermission() else {
        throw RecordingError(errorDescription: "microphone: expected permission to record, found none")
    }
    let session = AVAudioSession.sharedInstance()
    try session.setCategory(.record, mode: .measurement)
    try session.setActive(true)
    defer { try? session.setActive(false) }

    let engine = AVAudioEngine()
    let microphone = engine.inputNode.outputFormat(forBus: 0)
    guard
        let wanted = AVAudioFormat(
            commonFormat: .pcmFormatFloat32, sampleRate: Double(sampleRateHz), channels: 1, interleaved: false),
        let converter = AVAudioConverter(from: microphone, to: wanted)
    else {
        throw RecordingError(errorDescription: "microphone: expected a format that converts, found \(microphone)")
    }
    let buffers = AsyncStream<AVAudioPCMBuffer> { continuation in
        engine.inputNode.installTap(onBus: 0, bufferSize: 4096, format: microphone) { buffer, _ in
            continuation.yield(buffer)
        }
        continuation.onTermination = { _ in engine.inputNode.removeTap(onBus: 0) }
    }
    try engine.start()
    defer { engine.stop() }

    let count = sampleRateHz * seconds
    var samples: [Float] = []
    samples.reserveCapacity(count)
    for await buffer in buffers {
        let room = AVAudioFrameCount(Double(buffer.frameLength) * wanted.sampleRate / microphone.sampleRate) + 1
        guard let converted = AVAudioPCMBuffer(pcmFormat: wanted, frameCapacity: room) else { continue }
        var taken = false
        var failure: NSError?
        converter.convert(to: converted, error: &failure) { _, status in
            status.pointee = taken ? .noDataNow : .haveData
            defer { taken = true }
            return taken ? nil : buffer
        }
        if let failure { throw failure }
        if let data = converted.floatChannelData?[0] {
            samples.append(contentsOf: UnsafeBufferPointer(start: data, count: Int(converted.frameLength)))
        }
        if samples.count >= count { break }
    }
    return Array(samples.prefix(count))
}
