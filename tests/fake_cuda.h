/* fake_cuda.h — what the parts of the fake driver share. */
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)
typedef unsigned long long ptr;
enum { OK = 0, BAD = 1, NO_MEMORY = 2, NO_DEVICE = 100, BAD_IMAGE = 200, NOT_FOUND = 500, NOT_READY = 600, TRAP = 719, CAPTURING = 900, UNKNOWN = 999 };

typedef struct fake_state {
  long long used, launches, issued; /* launches: that were run; issued: to streams, graphs' too */
  int lost, contexts, allocations, modules, streams, events, graphs;
} fake_state;
extern fake_state state;

typedef struct function {
  void *code;
  int (*launch)(void *f, unsigned grid, unsigned threads, int nargs, void **args);
  int shared;
  void *module;
  struct function *next;
} function;

long option(const char *name, long otherwise); /* of $FAKE_CUDA */
int failing(const char *function);
#define CHECK \
  do { int e = failing(__func__); if (e) return e; } while (0)
int is_pinned(const void *p); /* memory of cuMemHostAlloc */
ptr argument(const void *p);  /* of a launch: an address, or a map by value, of which a copy is kept */
void forget_streams(void);    /* and what they have not done */
#pragma GCC visibility pop
#endif
