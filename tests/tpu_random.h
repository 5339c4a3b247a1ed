/* tpu_random.h — random numbers for tests of the systolic machine. */
#ifndef TPU_RANDOM_H
#define TPU_RANDOM_H
#include <stdint.h>

typedef struct tpu_random { uint64_t state; } tpu_random;

static inline uint64_t tpu_next(tpu_random *r) {
  uint64_t z = r->state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static inline int64_t tpu_between(tpu_random *r, int64_t lo, int64_t hi) { /* both included */
  return lo + (int64_t)(tpu_next(r) % (uint64_t)(hi - lo + 1));
}
#endif
