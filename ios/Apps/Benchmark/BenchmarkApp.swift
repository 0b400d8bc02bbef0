import Foundation
import SwiftUI
import VoxPress

/// Runs the harness as its arguments say, prints the runner's lines and last `voxpress-exit:<code>`, and ends.
@main
struct BenchmarkApp: App {
    init() {
        let arguments = Array(CommandLine.arguments.dropFirst())
        guard arguments.contains("--model") || arguments.contains("--machine") else { return }
        Thread.detachNewThread {
            let (code, text) = Benchmark.run(arguments)
            if !text.isEmpty { print(text) }
            print("voxpress-exit:\(code)")
            fflush(stdout)
            exit(code)
        }
    }

    var body: some Scene {
        WindowGroup { Text("Started by voxpress device run --device ios") }
    }
}
