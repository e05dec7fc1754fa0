// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Calls functions of the library for another process: compiled for aarch64 and run by an emulator,
// so that the tests of the kernels need no Python for that processor (see emulated.py).
//
// A request is a name, twelve integers or addresses of this process, and a float; the answer is the
// result of the function. "put" and "get" move bytes from and to the pipe.

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

namespace {

struct Request {
  char name[32];
  int64_t argument[12];
  float number;
  int32_t reserved;
};

// On aarch64, integers and addresses are passed in x0 to x7, then in 8 bytes of the stack each,
// and the first float in s0: one signature fits every function of the library.
using Function = int64_t (*)(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                             int64_t, int64_t, int64_t, int64_t, int64_t, float);

}  // namespace

int main(int count, char** arguments) {
  if (count != 2 || !dlopen(arguments[1], RTLD_NOW | RTLD_GLOBAL)) {
    std::fprintf(stderr, "call_server LIBRARY: %s\n", count == 2 ? dlerror() : "one argument");
    return 1;
  }
  Request request;
  while (std::fread(&request, sizeof request, 1, stdin) == 1) {
    const int64_t* a = request.argument;
    int64_t result = 0;
    if (std::strcmp(request.name, "put") == 0) {
      if (std::fread(reinterpret_cast<void*>(a[0]), a[1], 1, stdin) != 1) return 1;
    } else if (std::strcmp(request.name, "get") == 0) {
      std::fwrite(reinterpret_cast<void*>(a[0]), a[1], 1, stdout);
    } else if (void* found = dlsym(RTLD_DEFAULT, request.name)) {
      result = reinterpret_cast<Function>(found)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7],
                                                 a[8], a[9], a[10], a[11], request.number);
    } else {
      std::fprintf(stderr, "call_server: no function %s\n", request.name);
      return 1;
    }
    std::fwrite(&result, sizeof result, 1, stdout);
    std::fflush(stdout);
  }
  return 0;
}
