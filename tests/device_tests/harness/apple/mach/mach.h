// Of Apple's header of this name, what the harness uses, as its documentation declares it.
#pragma once

#include <stdint.h>

using kern_return_t = int;
using natural_t = uint32_t;
using mach_port_t = natural_t;
using mach_msg_type_number_t = natural_t;
using task_info_t = int*;

struct time_value_t {
  int seconds, microseconds;
};

struct mach_task_basic_info {
  uint64_t virtual_size, resident_size, resident_size_max;
  time_value_t user_time, system_time;
  int policy, suspend_count;
};

#define KERN_SUCCESS 0
#define MACH_TASK_BASIC_INFO 20
#define MACH_TASK_BASIC_INFO_COUNT (sizeof(mach_task_basic_info) / sizeof(natural_t))

extern "C" mach_port_t mach_task_self();
extern "C" kern_return_t task_info(mach_port_t task, natural_t flavor, task_info_t info, mach_msg_type_number_t* count);
