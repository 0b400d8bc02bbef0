import VoxPress
import XCTest

/// What a device farm runs: the harness with the options in VOXPRESS_ARGUMENTS, one a line. What it writes is attached to
/// the test's result.
final class BenchmarkTests: XCTestCase {
    func testBenchmark() throws {
        let environment = ProcessInfo.processInfo.environment
        guard let given = environment["VOXPRESS_ARGUMENTS"], !given.isEmpty else {
            throw XCTSkip("no VOXPRESS_ARGUMENTS")
        }
        var arguments = given.components(separatedBy: "\n")
        let out = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        if let at = arguments.firstIndex(of: "--out"), at + 1 < arguments.count {
            arguments[at + 1] = out.path
        } else {
            arguments += ["--out", out.path]
        }
        // A bare name is a file of the test's own bundle.
        for option in ["--model", "--features"] {
            guard let at = arguments.firstIndex(of: option), at + 1 < arguments.count else { continue }
            let name = arguments[at + 1]
            if !name.contains("/") {
                arguments[at + 1] = try XCTUnwrap(
                    Bundle(for: Self.self).url(forResource: name, withExtension: nil), "no resource \(name)").path
            }
        }
        let (code, text) = Benchmark.run(arguments)
        XCTAssertEqual(code, 0, text)
        for file in try FileManager.default.contentsOfDirectory(at: out, includingPropertiesForKeys: nil) {
            let json = file.pathExtension == "json"
            let attachment = XCTAttachment(
                uniformTypeIdentifier: json ? "public.json" : "public.data", name: file.lastPathComponent,
                payload: try Data(contentsOf: file), userInfo: nil)
            attachment.lifetime = .keepAlways
            add(attachment)
        }
    }
}
