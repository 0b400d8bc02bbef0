// Makes a value in a vector register one that the compiler knows nothing about.
#pragma once

#if defined(__x86_64__)
#define VOXPRESS_TOUCH(lanes) __asm__ volatile("" : "+v"(lanes))
#elif defined(__aarch64__)
#define VOXPRESS_TOUCH(lanes) __asm__ volatile("" : "+w"(lanes))
#else
#define VOXPRESS_TOUCH(lanes) __asm__ volatile("" : "+m"(lanes))
#endif
