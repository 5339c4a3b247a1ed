/* threads.h — a pool of threads that share the tasks of one parallel region.
 *
 * Each worker has a contiguous block of the tasks, and takes over what others have left when it is done, so that one
 * that comes late or is held up costs no more than a task. Bits never depend on it (tasks are independent, scratch is per worker).
 * Idle workers spin for some microseconds, then sleep; the caller is worker 0.
 */
#ifndef RT_THREADS_H
#define RT_THREADS_H
#include <stdint.h>

/* The same struct as P_threads of generated headers: an outside program may pass its own
 * scheduler. Null pointer: serial. */
typedef struct rt_threads {
  void *ctx;
  int workers; /* worker numbers are in [0, workers) */
  void (*parallel_for)(void *ctx, int tasks, void (*body)(void *arg, int task, int worker), void *arg);
} rt_threads;

typedef struct rt_pool rt_pool;

/* A pool of `workers` (the caller included, so workers - 1 threads are started); workers <= 0
 * means as many as this process may run on. Null when threads or memory are out. */
rt_pool *rt_pool_new(int workers);
/* Ends the threads. No region may be running. Null is allowed. */
void rt_pool_free(rt_pool *pool);
/* What to pass to a run; lives as long as the pool. May be used by several threads at a time:
 * a caller that finds the pool busy runs its region alone as worker 0, which is also what a
 * region inside a region does. Null for a null pool. */
const rt_threads *rt_pool_threads(rt_pool *pool);
int rt_pool_workers(const rt_pool *pool); /* 1 for a null pool */
/* CPUs that this process may run on, at least 1. */
int rt_cpu_count(void);
#endif
