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

    /// AWS Device Farm puts its extra data, a job of `voxpress device package aws --platform ios`, into the app's container.
    /// Works through it, and attaches what each engine wrote as one JSON text, which `voxpress device ingest` reads.
    func testJob() throws {
        let home = URL(fileURLWithPath: NSHomeDirectory())
        let places = ["Documents/device", "device", "Library/device", "tmp/device"].map { home.appendingPathComponent($0) }
        let isJob = { (place: URL) in
            FileManager.default.fileExists(atPath: place.appendingPathComponent("run.sh").path)
        }
        guard let job = places.first(where: isJob) else {
            throw XCTSkip("no job in the app's container")
        }
        // The script's paths are relative to its own folder.
        XCTAssertTrue(FileManager.default.changeCurrentDirectoryPath(job.path))
        let script = try String(contentsOf: job.appendingPathComponent("run.sh"), encoding: .utf8)
        for line in script.components(separatedBy: "\n") where line.hasPrefix("engine ") {
            // engine, folder of results, program, options
            let words = line.components(separatedBy: " ").map { $0.trimmingCharacters(in: CharacterSet(charactersIn: "'")) }
            let out = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
            let (code, text) = Benchmark.run(Array(words.dropFirst(3)) + ["--out", out.path])
            XCTAssertEqual(code, 0, "\(words[1]): \(text)")
            var files: [String: String] = [:]
            let written = try? FileManager.default.contentsOfDirectory(at: out, includingPropertiesForKeys: nil)
            for file in written ?? [] {
                files[file.lastPathComponent] = try Data(contentsOf: file).base64EncodedString()
            }
            let result: [String: Any] = ["format": "voxpress-attachment", "out": words[1], "files": files]
            let attachment = XCTAttachment(
                uniformTypeIdentifier: "public.json", name: "voxpress-results.json",
                payload: try JSONSerialization.data(withJSONObject: result), userInfo: nil)
            attachment.lifetime = .keepAlways
            add(attachment)
        }
    }
}
