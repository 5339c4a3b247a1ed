/* object.h — a compiled object as the worker sees it, whatever its prefix: bench/peers/object.c is
 * compiled once per model with its header and linked with its object into a library. */
#ifndef BENCH_OBJECT_H
#define BENCH_OBJECT_H
#include "runtime/threads.h"
#include <stdint.h>

typedef struct bench_object {
  int inputs, outputs;
  int64_t state_bytes;
  int64_t (*input_bytes)(int k);
  int64_t (*output_bytes)(int k);
  int64_t (*arena_bytes)(int workers);
  int (*run)(const void *const in[], void *const out[], void *state, void *arena, const rt_threads *threads);
} bench_object;
#endif
