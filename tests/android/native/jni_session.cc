// The JNI layer without a JVM, as org.voxpress.Native would call it: opens a bundle, enrols from three utterances,
// verifies the others, is closed during use, throws what it should. See tests/android/test_jni.py.
//
//   jni_session BUNDLE KEYS SIGNATURE SAMPLES...     SIGNATURE: file of the 64 bytes that the verifier takes for valid
//
// One line a trial: score, llr, accepted. Then the exceptions, each on a line of the standard error stream.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "fake_jvm.h"

extern "C" {
jlong Java_org_voxpress_Native_open(JNIEnv*, jclass, jobjectArray, jint, jobject);
void Java_org_voxpress_Native_close(JNIEnv*, jclass, jlong);
void Java_org_voxpress_Native_info(JNIEnv*, jclass, jlong, jobjectArray, jdoubleArray);
jbyteArray Java_org_voxpress_Native_enroll(JNIEnv*, jclass, jlong, jobjectArray);
jdoubleArray Java_org_voxpress_Native_verify(JNIEnv*, jclass, jlong, jbyteArray, jfloatArray);
jint Java_org_voxpress_Native_benchmark(JNIEnv*, jclass, jobjectArray, jobjectArray);
jlong Java_org_voxpress_Native_createDelegate(JNIEnv*, jclass);
void Java_org_voxpress_Native_destroyDelegate(JNIEnv*, jclass, jlong);
}

namespace {

using fake::Jvm;
using fake::Object;

std::string read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) std::exit(2);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<float> read_samples(const char* path) {
  const std::string bytes = read_file(path);
  std::vector<float> samples(bytes.size() / sizeof(float));
  std::memcpy(samples.data(), bytes.data(), samples.size() * sizeof(float));
  return samples;
}

Jvm::Verify only(const std::string& signature) {
  return [signature](const Object& key, const Object&, const Object& found) {
    return key.bytes.size() == 32 && std::string(found.bytes.begin(), found.bytes.end()) == signature;
  };
}

[[noreturn]] void fail(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(1);
}

// What a call threw, on a line of its own; it must have thrown.
void report(Jvm* jvm) {
  const std::string thrown = jvm->take_exception();
  if (thrown.empty()) fail("expected an exception, found none");
  std::fprintf(stderr, "%s\n", thrown.c_str());
}

void expect_none(Jvm* jvm) {
  const std::string thrown = jvm->take_exception();
  if (!thrown.empty()) fail(thrown);
}

jlong open(Jvm* jvm, const char* bundle, const std::string& keys) {
  const auto text = [jvm](const char* value) { return value == nullptr ? nullptr : Jvm::object(jvm->bytes(value)); };
  const jobjectArray texts =
      jvm->array({text(bundle), text(keys.c_str()), nullptr, text(std::getenv("VOXPRESS_FORMAT")), nullptr, nullptr,
                  nullptr, text(std::getenv("VOXPRESS_RUNTIME")), text(std::getenv("VOXPRESS_DELEGATE")), nullptr});
  return Java_org_voxpress_Native_open(jvm->env(), nullptr, texts, 1, Jvm::as<jobject>(jvm->make()));
}

void trials(Jvm* jvm, jlong handle, jbyteArray voice, const std::vector<std::vector<float>>& utterances) {
  for (size_t i = 3; i < utterances.size(); ++i) {
    const jdoubleArray found =
        Java_org_voxpress_Native_verify(jvm->env(), nullptr, handle, voice, jvm->floats(utterances[i]));
    expect_none(jvm);
    const std::vector<double>& values = Jvm::object(found)->doubles;
    std::printf("%.17g %.17g %d\n", values[0], values[1], static_cast<int>(values[2]));
  }
}

// Two threads verify until the handle is closed under them.
void close_during_use(Jvm* jvm, jlong handle, jbyteArray voice, const std::vector<float>& utterance) {
  std::string ends[2];
  std::vector<std::thread> workers;
  for (std::string& end : ends) {
    workers.emplace_back([&end, handle, voice, &utterance] {
      Jvm own([](const Object&, const Object&, const Object&) { return false; });
      const jfloatArray samples = own.floats(utterance);
      while (end.empty()) {
        Java_org_voxpress_Native_verify(own.env(), nullptr, handle, voice, samples);
        end = own.take_exception();
      }
    });
  }
  Java_org_voxpress_Native_verify(jvm->env(), nullptr, handle, voice, jvm->floats(utterance));
  expect_none(jvm);
  Java_org_voxpress_Native_close(jvm->env(), nullptr, handle);
  for (std::thread& worker : workers) worker.join();
  for (const std::string& end : ends) std::fprintf(stderr, "%s\n", end.c_str());
}

void errors(Jvm* jvm, jlong handle, jbyteArray voice, const std::vector<float>& utterance) {
  JNIEnv* env = jvm->env();
  Java_org_voxpress_Native_enroll(env, nullptr, handle, jvm->array({}));
  report(jvm);
  Java_org_voxpress_Native_enroll(env, nullptr, handle, jvm->array({Jvm::object(jvm->floats({1.0F}))}));
  report(jvm);
  Java_org_voxpress_Native_verify(env, nullptr, handle, jvm->bytes("abc"), jvm->floats(utterance));
  report(jvm);
  Java_org_voxpress_Native_verify(env, nullptr, handle, voice, jvm->floats({}));
  report(jvm);
  const jobjectArray why = jvm->array({nullptr});
  const jint code =
      Java_org_voxpress_Native_benchmark(env, nullptr, jvm->array({Jvm::object(jvm->bytes("--model"))}), why);
  std::fprintf(stderr, "%d %s\n", static_cast<int>(code), Jvm::object(why)->elements[0]->text.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 8) return 2;
  const std::string keys = read_file(argv[2]), signature = read_file(argv[3]);
  std::vector<std::vector<float>> utterances;
  for (int i = 4; i < argc; ++i) utterances.push_back(read_samples(argv[i]));
  Jvm jvm(only(signature));
  JNIEnv* env = jvm.env();

  const jlong handle = open(&jvm, argv[1], keys);
  expect_none(&jvm);
  const jobjectArray texts = jvm.array(std::vector<Object*>(7));
  Object* numbers = jvm.make();
  numbers->doubles.resize(6);
  Java_org_voxpress_Native_info(env, nullptr, handle, texts, Jvm::as<jdoubleArray>(numbers));
  expect_none(&jvm);
  std::vector<Object*> first;
  for (int i = 0; i < 3; ++i) first.push_back(Jvm::object(jvm.floats(utterances[static_cast<size_t>(i)])));
  const jbyteArray voice = Java_org_voxpress_Native_enroll(env, nullptr, handle, jvm.array(first));
  expect_none(&jvm);
  if (Jvm::object(voice)->bytes.size() != static_cast<size_t>(numbers->doubles[5])) fail("a voice of another size");
  trials(&jvm, handle, voice, utterances);

  const jlong delegate = Java_org_voxpress_Native_createDelegate(env, nullptr);
  if (delegate == 0) fail("no delegate");
  Java_org_voxpress_Native_destroyDelegate(env, nullptr, delegate);
  errors(&jvm, handle, voice, utterances[0]);
  close_during_use(&jvm, handle, voice, utterances[0]);
  Java_org_voxpress_Native_close(env, nullptr, handle);
  Java_org_voxpress_Native_info(env, nullptr, handle, texts, Jvm::as<jdoubleArray>(numbers));
  report(&jvm);

  Jvm other(only("another"));
  if (open(&other, argv[1], keys) != 0) fail("a bundle of another signature was opened");
  report(&other);
  return 0;
}
