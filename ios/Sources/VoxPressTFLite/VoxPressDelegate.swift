// For apps that run .tflite files with TensorFlowLiteSwift, which they bring themselves (it comes as a pod). Where it is
// not there, this target is empty.
#if canImport(TensorFlowLite)
import CVoxPressTFLite
import TensorFlowLite
import TensorFlowLiteC

/// Our ops for TensorFlowLiteSwift: `Interpreter(modelPath: path, delegates: [VoxPressDelegate()])`.
///
/// Keep it for as long as the interpreters that use it.
public final class VoxPressDelegate: Delegate {
    public let cDelegate: UnsafeMutablePointer<TfLiteDelegate>

    public init?() {
        guard let made = tflite_plugin_create_delegate(nil, nil, 0, nil) else { return nil }
        cDelegate = made.assumingMemoryBound(to: TfLiteDelegate.self)
    }

    deinit {
        tflite_plugin_destroy_delegate(cDelegate)
    }
}
#endif
