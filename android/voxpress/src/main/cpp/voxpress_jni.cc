// org.voxpress.Native over voxpress.h and the delegate: arrays in, arrays out, statuses turned into Java exceptions.
#include <jni.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "voxpress.h"

// The delegate's entry points, see exporters/tflite/native/delegate.cc.
extern "C" void* tflite_plugin_create_delegate(const char* const* keys, const char* const* values, size_t count,
                                               void (*report_error)(const char*));
extern "C" void tflite_plugin_destroy_delegate(void* delegate);

namespace {

constexpr char kRefused[] = "org/voxpress/VoxPressException";
constexpr char kClosed[] = "java/lang/IllegalStateException";

void raise(JNIEnv* env, const char* type, const char* text) {
  if (env->ExceptionCheck()) return;
  const jclass found = env->FindClass(type);
  if (found != nullptr) env->ThrowNew(found, text);
}

// True if the call did what it should; else an exception waits for the return to Java.
bool done(JNIEnv* env, VoxpressStatus status, const VoxpressError& error) {
  if (status == VOXPRESS_OK) return true;
  raise(env, status == VOXPRESS_CLOSED ? kClosed : kRefused, error.text);
  return false;
}

std::vector<uint8_t> bytes_of(JNIEnv* env, jbyteArray array) {
  std::vector<uint8_t> bytes(static_cast<size_t>(env->GetArrayLength(array)));
  env->GetByteArrayRegion(array, 0, static_cast<jsize>(bytes.size()), reinterpret_cast<jbyte*>(bytes.data()));
  return bytes;
}

jbyteArray array_of(JNIEnv* env, const uint8_t* bytes, size_t size) {
  const jbyteArray array = env->NewByteArray(static_cast<jsize>(size));
  if (array != nullptr) {
    env->SetByteArrayRegion(array, 0, static_cast<jsize>(size), reinterpret_cast<const jbyte*>(bytes));
  }
  return array;
}

// UTF-8 of a Java array of bytes, closed by a zero; null stays null.
class Text {
 public:
  Text(JNIEnv* env, jobjectArray texts, jsize index) {
    const auto array = static_cast<jbyteArray>(env->GetObjectArrayElement(texts, index));
    if (array == nullptr) return;
    const std::vector<uint8_t> bytes = bytes_of(env, array);
    text_.assign(bytes.begin(), bytes.end());
    given_ = true;
    env->DeleteLocalRef(array);
  }
  const char* get() const { return given_ ? text_.c_str() : nullptr; }

 private:
  std::string text_;
  bool given_ = false;
};

// A Java array of samples, as it lies or copied, for as long as this lives.
class JavaSamples {
 public:
  JavaSamples(JNIEnv* env, jfloatArray array)
      : env_(env),
        array_(array),
        count_(env->GetArrayLength(array)),
        data_(env->GetFloatArrayElements(array, nullptr)) {}
  ~JavaSamples() {
    if (data_ != nullptr) env_->ReleaseFloatArrayElements(array_, data_, JNI_ABORT);
  }
  JavaSamples(const JavaSamples&) = delete;
  JavaSamples& operator=(const JavaSamples&) = delete;

  bool there() const { return data_ != nullptr; }
  VoxpressSamples get() const { return {data_, static_cast<size_t>(count_)}; }

 private:
  JNIEnv* env_;
  jfloatArray array_;
  jsize count_;
  jfloat* data_;
};

// The Java side of a signature check.
struct Verifier {
  JNIEnv* env;
  jobject object;
  jmethodID verify;
};

int32_t verify_in_java(void* context, const uint8_t* public_key, const uint8_t* message, size_t message_bytes,
                       const uint8_t* signature) {
  const auto* verifier = static_cast<const Verifier*>(context);
  JNIEnv* env = verifier->env;
  const jbyteArray key = array_of(env, public_key, VOXPRESS_ED25519_KEY_BYTES);
  const jbyteArray text = key == nullptr ? nullptr : array_of(env, message, message_bytes);
  const jbyteArray proof = text == nullptr ? nullptr : array_of(env, signature, VOXPRESS_ED25519_SIGNATURE_BYTES);
  if (proof == nullptr) return 0;
  const jboolean holds = env->CallBooleanMethod(verifier->object, verifier->verify, key, text, proof);
  // What it threw, if it did, is what the caller of open gets.
  return env->ExceptionCheck() || holds != JNI_TRUE ? 0 : 1;
}

}  // namespace

extern "C" {

// texts: bundle, public keys, lowest version, format, label, mode, operating point, runtime library, delegate library,
// storage.
JNIEXPORT jlong JNICALL Java_org_voxpress_Native_open(JNIEnv* env, jclass, jobjectArray texts, jint threads,
                                                      jobject verifier) {
  constexpr jsize kTexts = 10;
  std::vector<Text> all;
  for (jsize i = 0; i < kTexts; ++i) all.emplace_back(env, texts, i);
  const jclass type = env->GetObjectClass(verifier);
  Verifier context = {env, verifier, env->GetMethodID(type, "verify", "([B[B[B)Z")};
  if (context.verify == nullptr) return 0;
  VoxpressOptions options = {};
  options.bundle = all[0].get();
  options.public_keys = all[1].get();
  options.verify_signature = verify_in_java;
  options.verify_context = &context;
  options.min_version = all[2].get();
  options.format = all[3].get();
  options.label = all[4].get();
  options.mode = all[5].get();
  options.operating_point = all[6].get();
  options.runtime_library = all[7].get();
  options.delegate_library = all[8].get();
  options.storage = all[9].get();
  options.threads = threads;
  VoxpressError error;
  const VoxpressHandle handle = voxpress_open(&options, &error);
  if (handle == 0) raise(env, kRefused, error.text);
  return static_cast<jlong>(handle);
}

JNIEXPORT void JNICALL Java_org_voxpress_Native_close(JNIEnv*, jclass, jlong handle) {
  voxpress_close(static_cast<VoxpressHandle>(handle));
}

// texts [7]: name, version, key id, model, engine, runtime, operating point; numbers [6]: threshold, sample rate,
// embedding dim, least and most samples, bytes of a voice.
JNIEXPORT void JNICALL Java_org_voxpress_Native_info(JNIEnv* env, jclass, jlong handle, jobjectArray texts,
                                                     jdoubleArray numbers) {
  VoxpressInfo info;
  VoxpressError error;
  if (!done(env, voxpress_info(static_cast<VoxpressHandle>(handle), &info, &error), error)) return;
  const std::array<const char*, 7> words = {info.name,   info.version, info.signed_by,      info.model,
                                            info.engine, info.runtime, info.operating_point};
  for (size_t i = 0; i < words.size(); ++i) {
    const jstring word = env->NewStringUTF(words[i]);
    if (word == nullptr) return;
    env->SetObjectArrayElement(texts, static_cast<jsize>(i), word);
    env->DeleteLocalRef(word);
  }
  const std::array<jdouble, 6> values = {info.threshold,
                                         static_cast<jdouble>(info.sample_rate_hz),
                                         static_cast<jdouble>(info.embedding_dim),
                                         static_cast<jdouble>(info.min_samples),
                                         static_cast<jdouble>(info.max_samples),
                                         static_cast<jdouble>(info.voice_bytes)};
  env->SetDoubleArrayRegion(numbers, 0, static_cast<jsize>(values.size()), values.data());
}

JNIEXPORT jbyteArray JNICALL Java_org_voxpress_Native_enroll(JNIEnv* env, jclass, jlong handle,
                                                             jobjectArray utterances) {
  VoxpressInfo info;
  VoxpressError error;
  if (!done(env, voxpress_info(static_cast<VoxpressHandle>(handle), &info, &error), error)) return nullptr;
  const jsize count = env->GetArrayLength(utterances);
  std::vector<std::vector<float>> kept;
  std::vector<VoxpressSamples> all;
  for (jsize i = 0; i < count; ++i) {
    const auto array = static_cast<jfloatArray>(env->GetObjectArrayElement(utterances, i));
    kept.emplace_back(static_cast<size_t>(env->GetArrayLength(array)));
    env->GetFloatArrayRegion(array, 0, static_cast<jsize>(kept.back().size()), kept.back().data());
    env->DeleteLocalRef(array);
  }
  for (const std::vector<float>& samples : kept) all.push_back({samples.data(), samples.size()});
  std::vector<uint8_t> voice(info.voice_bytes);
  const VoxpressStatus status =
      voxpress_enroll(static_cast<VoxpressHandle>(handle), all.data(), all.size(), voice.data(), &error);
  return done(env, status, error) ? array_of(env, voice.data(), voice.size()) : nullptr;
}

// [score, llr, 1 or 0 for accepted]
JNIEXPORT jdoubleArray JNICALL Java_org_voxpress_Native_verify(JNIEnv* env, jclass, jlong handle, jbyteArray voice,
                                                               jfloatArray samples) {
  const std::vector<uint8_t> bytes = bytes_of(env, voice);
  const JavaSamples utterance(env, samples);
  if (!utterance.there()) return nullptr;
  VoxpressDecision decision;
  VoxpressError error;
  const VoxpressStatus status = voxpress_verify(static_cast<VoxpressHandle>(handle), bytes.data(), bytes.size(),
                                                utterance.get(), &decision, &error);
  if (!done(env, status, error)) return nullptr;
  const std::array<jdouble, 3> values = {decision.score, decision.llr, static_cast<jdouble>(decision.accepted)};
  const jdoubleArray array = env->NewDoubleArray(static_cast<jsize>(values.size()));
  if (array != nullptr) env->SetDoubleArrayRegion(array, 0, static_cast<jsize>(values.size()), values.data());
  return array;
}

// text [1]: why it failed, "" if it did not.
JNIEXPORT jint JNICALL Java_org_voxpress_Native_benchmark(JNIEnv* env, jclass, jobjectArray arguments,
                                                          jobjectArray text) {
  const jsize count = env->GetArrayLength(arguments);
  std::vector<Text> words;
  for (jsize i = 0; i < count; ++i) words.emplace_back(env, arguments, i);
  std::vector<const char*> all;
  for (const Text& word : words) all.push_back(word.get());
  VoxpressError error;
  const int32_t code = voxpress_benchmark(all.data(), all.size(), &error);
  const jstring why = env->NewStringUTF(error.text);
  if (why != nullptr) env->SetObjectArrayElement(text, 0, why);
  return code;
}

JNIEXPORT jlong JNICALL Java_org_voxpress_Native_createDelegate(JNIEnv*, jclass) {
  return reinterpret_cast<jlong>(tflite_plugin_create_delegate(nullptr, nullptr, 0, nullptr));
}

JNIEXPORT void JNICALL Java_org_voxpress_Native_destroyDelegate(JNIEnv*, jclass, jlong delegate) {
  tflite_plugin_destroy_delegate(reinterpret_cast<void*>(delegate));
}

}  // extern "C"
