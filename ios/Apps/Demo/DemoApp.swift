import SwiftUI
import VoxPress

/// Records, enrols, verifies, and shows the score beside the threshold. A demonstration, not a lock: a recording of the
/// voice passes.
@main
struct DemoApp: App {
    var body: some Scene {
        WindowGroup { DemoView() }
    }
}

struct DemoView: View {
    @StateObject private var model = DemoModel()

    var body: some View {
        VStack(spacing: 24) {
            Text(model.status).multilineTextAlignment(.center)
            Button("Enrol: three times three seconds") { model.enroll() }
            Button("Verify: three seconds") { model.verify() }
            Button("Forget the voice", role: .destructive) { model.forget() }
        }
        .buttonStyle(.borderedProminent)
        .disabled(model.busy)
        .padding()
        .task { model.start() }
    }
}

@MainActor
final class DemoModel: ObservableObject {
    @Published private(set) var status = "Opening the bundle"
    @Published private(set) var busy = false

    private var voxpress: VoxPress?
    private let store = VoiceStore()
    private static let utterances = 3
    private static let seconds = 3

    func start() {
        during { voxpress in
            let enrolled = voxpress.voice == nil ? "no voice" : "a voice"
            self.status = "Ready, by \(voxpress.info.model); \(enrolled) enrolled."
        }
    }

    func enroll() {
        during { voxpress in
            var utterances: [[Float]] = []
            for number in 1...Self.utterances {
                self.status = "Speak: \(number) of \(Self.utterances)"
                utterances.append(try await record(sampleRateHz: voxpress.info.sampleRateHz, seconds: Self.seconds))
            }
            try self.store.write(try await voxpress.enroll(utterances: utterances))
            self.status = "Enrolled."
        }
    }

    func verify() {
        during { voxpress in
            self.status = "Speak"
            let samples = try await record(sampleRateHz: voxpress.info.sampleRateHz, seconds: Self.seconds)
            let found = try await voxpress.verify(samples)
            let verdict = found.accepted ? "Accepted" : "Refused"
            self.status = String(
                format: "%@: score %.3f, threshold %.3f, log-likelihood ratio %.2f", verdict, found.score,
                voxpress.info.threshold, found.llr)
        }
    }

    func forget() {
        during { voxpress in
            voxpress.voice = nil
            try self.store.clear()
            self.status = "Forgotten."
        }
    }

    // One thing at a time, with the reason shown if it fails.
    private func during(_ action: @escaping @MainActor (VoxPress) async throws -> Void) {
        guard !busy else { return }
        busy = true
        Task {
            do {
                try await action(try await opened())
            } catch let error as VoxPressError {
                status = error.message
            } catch {
                status = error.localizedDescription
            }
            busy = false
        }
    }

    private func opened() async throws -> VoxPress {
        if let voxpress { return voxpress }
        guard let bundle = Bundle.main.url(forResource: "bundle", withExtension: nil),
            let key = Bundle.main.url(forResource: "key", withExtension: "pem")
        else {
            throw VoxPressError.badInput("app: expected the resources bundle and key.pem, found none")
        }
        let made = try await VoxPress.open(bundle: bundle, publicKeys: String(contentsOf: key, encoding: .utf8))
        made.voice = try store.read()
        voxpress = made
        return made
    }
}
