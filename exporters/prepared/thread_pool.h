// The threads that layers are run on, one set for the whole process. They are started when they are first wanted.
//
// A call is cut into parts. Each thread begins with parts of its own, always the same for calls of the same size, and
// then takes what others have left, the calling thread among them: a call ends even if no other thread ever gets a
// turn. Between two calls that follow each other closely, as the layers of a network do, threads wait for a moment in a
// loop, then they sleep.
#pragma once

#include <cstdint>

namespace voxpress {

constexpr int32_t kMaxThreads = 64;
constexpr int32_t kMaxCallParts = 32767;

// Calls body(context, part, thread) for each part < parts on up to `threads` threads and returns when all are done;
// thread < threads, and no two parts run at the same time with the same; at most kMaxCallParts. While another call is
// running, as happens with several interpreters at once, all parts run on the calling thread.
void run_parts(int32_t parts, int32_t threads, void (*body)(void* context, int32_t part, int32_t thread),
               void* context);

// Ends all threads; the next call that wants some starts them again. To be called before the code is unloaded.
void stop_threads();

}  // namespace voxpress
