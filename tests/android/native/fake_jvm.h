// As much of a Java virtual machine as the JNI layer asks for, so that it runs where no JVM does: arrays, strings, an
// exception that waits, one object with one method. Whatever a real one would refuse (a range outside an array, a call
// while an exception waits) ends the program.
#pragma once

#include <jni.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace fake {

struct Object {
  std::vector<int8_t> bytes;
  std::vector<float> floats;
  std::vector<double> doubles;
  std::vector<Object*> elements;
  std::string text;  // of a string, or the name of a class
};

// One thread's environment. Objects live as long as it does.
class Jvm {
 public:
  using Verify = std::function<bool(const Object& key, const Object& message, const Object& signature)>;

  explicit Jvm(Verify verify) : verify_(std::move(verify)) {
    fill();
    env_.self = this;
    env_.env.functions = &functions_;
  }
  Jvm(const Jvm&) = delete;
  Jvm& operator=(const Jvm&) = delete;

  JNIEnv* env() { return &env_.env; }

  Object* make() { return &objects_.emplace_back(); }
  jbyteArray bytes(const std::string& text) {
    Object* made = make();
    made->bytes.assign(text.begin(), text.end());
    return as<jbyteArray>(made);
  }
  jfloatArray floats(const std::vector<float>& values) {
    Object* made = make();
    made->floats.reserve(values.size() + 1);  // an empty array has an address too
    made->floats.insert(made->floats.end(), values.begin(), values.end());
    return as<jfloatArray>(made);
  }
  jobjectArray array(std::vector<Object*> elements) {
    Object* made = make();
    made->elements = std::move(elements);
    return as<jobjectArray>(made);
  }

  template <typename Handle>
  static Handle as(Object* object) {
    return reinterpret_cast<Handle>(object);
  }
  static Object* object(jobject handle) { return reinterpret_cast<Object*>(handle); }

  // The exception that waits as "class: message", which it then does no longer; "" if there is none.
  std::string take_exception() { return std::exchange(thrown_, ""); }

 private:
  struct Environment {
    JNIEnv env;  // first: an environment's address is its JNIEnv's
    Jvm* self;
  };

  static Jvm& of(JNIEnv* env) { return *reinterpret_cast<Environment*>(env)->self; }

  [[noreturn]] static void broken(const char* what) {
    std::fprintf(stderr, "JNI: %s\n", what);
    std::abort();
  }
  static Jvm& ready(JNIEnv* env) {
    Jvm& jvm = of(env);
    if (!jvm.thrown_.empty()) broken("a call while an exception waits");
    return jvm;
  }

  template <typename Value>
  static void copy(Value* to, const Value* from, size_t size, jsize start, jsize count) {
    if (start < 0 || count < 0 || static_cast<size_t>(start) + static_cast<size_t>(count) > size) {
      broken("a range outside of an array");
    }
    if (count > 0) std::memcpy(to, from, static_cast<size_t>(count) * sizeof(Value));
  }

  static Object*& element(jobjectArray array, jsize index) {
    std::vector<Object*>& elements = object(array)->elements;
    if (index < 0 || static_cast<size_t>(index) >= elements.size()) broken("an index outside of an array");
    return elements[static_cast<size_t>(index)];
  }

  static jboolean verify(JNIEnv* env, jobject, jmethodID, va_list arguments) {
    const Object* key = object(va_arg(arguments, jobject));
    const Object* message = object(va_arg(arguments, jobject));
    const Object* signature = object(va_arg(arguments, jobject));
    return of(env).verify_(*key, *message, *signature) ? JNI_TRUE : JNI_FALSE;
  }

  void fill() {
    functions_.FindClass = [](JNIEnv* env, const char* name) {
      Object* made = ready(env).make();
      made->text = name;
      return as<jclass>(made);
    };
    functions_.ThrowNew = [](JNIEnv* env, jclass type, const char* message) -> jint {
      ready(env).thrown_ = object(type)->text + ": " + message;
      return 0;
    };
    functions_.ExceptionCheck = [](JNIEnv* env) -> jboolean { return of(env).thrown_.empty() ? JNI_FALSE : JNI_TRUE; };
    functions_.GetObjectClass = [](JNIEnv* env, jobject) { return as<jclass>(ready(env).make()); };
    functions_.GetMethodID = [](JNIEnv* env, jclass, const char* name, const char* signature) -> jmethodID {
      const bool known = std::string(name) == "verify" && std::string(signature) == "([B[B[B)Z";
      return known ? reinterpret_cast<jmethodID>(ready(env).make()) : nullptr;
    };
    functions_.CallBooleanMethodV = verify;
    functions_.DeleteLocalRef = [](JNIEnv*, jobject) {};
    functions_.NewStringUTF = [](JNIEnv* env, const char* text) {
      Object* made = ready(env).make();
      made->text = text;
      return as<jstring>(made);
    };
    functions_.GetArrayLength = [](JNIEnv* env, jarray array) -> jsize {
      ready(env);
      const Object* found = object(array);
      return static_cast<jsize>(found->bytes.size() + found->floats.size() + found->doubles.size() +
                                found->elements.size());
    };
    functions_.GetObjectArrayElement = [](JNIEnv* env, jobjectArray array, jsize index) {
      ready(env);
      return as<jobject>(element(array, index));
    };
    functions_.SetObjectArrayElement = [](JNIEnv* env, jobjectArray array, jsize index, jobject value) {
      ready(env);
      element(array, index) = object(value);
    };
    functions_.NewByteArray = [](JNIEnv* env, jsize size) {
      Object* made = ready(env).make();
      made->bytes.resize(static_cast<size_t>(size));
      return as<jbyteArray>(made);
    };
    functions_.NewDoubleArray = [](JNIEnv* env, jsize size) {
      Object* made = ready(env).make();
      made->doubles.resize(static_cast<size_t>(size));
      return as<jdoubleArray>(made);
    };
    functions_.GetByteArrayRegion = [](JNIEnv* env, jbyteArray array, jsize start, jsize count, jbyte* to) {
      ready(env);
      copy(to, object(array)->bytes.data() + start, object(array)->bytes.size(), start, count);
    };
    functions_.SetByteArrayRegion = [](JNIEnv* env, jbyteArray array, jsize start, jsize count, const jbyte* from) {
      ready(env);
      copy(object(array)->bytes.data() + start, from, object(array)->bytes.size(), start, count);
    };
    functions_.SetDoubleArrayRegion = [](JNIEnv* env, jdoubleArray array, jsize start, jsize count,
                                         const jdouble* from) {
      ready(env);
      copy(object(array)->doubles.data() + start, from, object(array)->doubles.size(), start, count);
    };
    functions_.GetFloatArrayRegion = [](JNIEnv* env, jfloatArray array, jsize start, jsize count, jfloat* to) {
      ready(env);
      copy(to, object(array)->floats.data() + start, object(array)->floats.size(), start, count);
    };
    functions_.GetFloatArrayElements = [](JNIEnv* env, jfloatArray array, jboolean*) {
      ready(env).borrowed_++;
      return object(array)->floats.data();
    };
    functions_.ReleaseFloatArrayElements = [](JNIEnv* env, jfloatArray, jfloat*, jint) {
      // Allowed while an exception waits.
      if (--of(env).borrowed_ < 0) broken("elements that were given back twice");
    };
  }

  Verify verify_;
  JNINativeInterface_ functions_ = {};
  Environment env_ = {};
  std::deque<Object> objects_;
  std::string thrown_;
  int borrowed_ = 0;
};

}  // namespace fake
